//! A static dataflow graph in SSA form over petgraph.
//!
//! A node is one op; an edge carries one result of its source to one operand of its sink. Edges are the only record
//! of who reads what.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use petgraph::Direction::{Incoming, Outgoing};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

use crate::ops::{Op, TypeError};
use crate::ty::ValueType;

/// A node of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(NodeIndex<u32>);

impl NodeId {
    pub fn index(self) -> usize {
        self.0.index()
    }
}

/// One result of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId {
    pub node: NodeId,
    pub result: usize,
}

/// An op, the types of its results, and the label a reader knows it by (`L07.ffn_down`).
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub op: Op,
    pub types: Vec<ValueType>,
    pub label: String,
}

/// Which result meets which operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Use {
    result: usize,
    operand: usize,
}

/// One static graph for `m` token rows.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub name: String,
    /// Token rows.
    pub m: usize,
    nodes: StableDiGraph<Node, Use, u32>,
    /// The graph's results in order.
    pub outputs: Vec<ValueId>,
}

impl Graph {
    pub fn new(name: impl Into<String>, m: usize) -> Self {
        Graph { name: name.into(), m, ..Graph::default() }
    }

    /// Adds a leaf of the declared type.
    pub fn leaf(&mut self, op: Op, ty: ValueType, label: impl Into<String>) -> ValueId {
        assert!(op.is_leaf(), "{} has operands", op.name());
        let node = NodeId(self.nodes.add_node(Node { op, types: vec![ty], label: label.into() }));
        ValueId { node, result: 0 }
    }

    /// Adds an op; its result types follow from the operands.
    pub fn add(&mut self, op: Op, operands: &[ValueId], label: impl Into<String>) -> Result<NodeId, TypeError> {
        let operand_types: Vec<_> = operands.iter().map(|v| self.ty(*v).clone()).collect();
        let types = op.infer(&operand_types)?;
        let node = self.nodes.add_node(Node { op, types, label: label.into() });
        for (operand, value) in operands.iter().enumerate() {
            self.nodes.add_edge(value.node.0, node, Use { result: value.result, operand });
        }
        Ok(NodeId(node))
    }

    /// Adds an op and returns its first result.
    pub fn push(&mut self, op: Op, operands: &[ValueId], label: impl Into<String>) -> Result<ValueId, TypeError> {
        Ok(ValueId { node: self.add(op, operands, label)?, result: 0 })
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The op of `id`, if it has not been removed: what a pass that edits while it walks asks first.
    pub fn op(&self, id: NodeId) -> Option<Op> {
        self.nodes.node_weight(id.0).map(|node| node.op)
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }

    pub fn ty(&self, value: ValueId) -> &ValueType {
        &self.node(value.node).types[value.result]
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Operands of `id` in order.
    pub fn operands(&self, id: NodeId) -> Vec<ValueId> {
        let by_operand: BTreeMap<usize, ValueId> = self
            .nodes
            .edges_directed(id.0, Incoming)
            .map(|e| (e.weight().operand, ValueId { node: NodeId(e.source()), result: e.weight().result }))
            .collect();
        by_operand.into_values().collect()
    }

    /// Readers of `value`: each node with the operand position, in node order.
    pub fn readers(&self, value: ValueId) -> Vec<(NodeId, usize)> {
        let mut readers: Vec<_> = self
            .nodes
            .edges_directed(value.node.0, Outgoing)
            .filter(|e| e.weight().result == value.result)
            .map(|e| (NodeId(e.target()), e.weight().operand))
            .collect();
        readers.sort();
        readers
    }

    /// True if `value` is a result of the graph.
    pub fn is_output(&self, value: ValueId) -> bool {
        self.outputs.contains(&value)
    }

    /// Makes every reader of `from`, and the outputs, read `to` instead.
    pub fn replace(&mut self, from: ValueId, to: ValueId) {
        for (reader, operand) in self.readers(from) {
            self.set_operand(reader, operand, to);
        }
        for output in &mut self.outputs {
            if *output == from {
                *output = to;
            }
        }
    }

    /// Makes operand `operand` of `node` read `value`.
    pub fn set_operand(&mut self, node: NodeId, operand: usize, value: ValueId) {
        let old = self.nodes.edges_directed(node.0, Incoming).find(|e| e.weight().operand == operand).map(|e| e.id());
        if let Some(edge) = old {
            self.nodes.remove_edge(edge);
        }
        self.nodes.add_edge(value.node.0, node.0, Use { result: value.result, operand });
    }

    /// Removes a node that nobody reads. Panics if it is read.
    pub fn remove(&mut self, id: NodeId) {
        assert!(self.nodes.edges_directed(id.0, Outgoing).next().is_none(), "{} is still read", self.node(id).label);
        self.nodes.remove_node(id.0);
    }

    /// Nodes in a topological order, the same on every host: among ready nodes, the oldest first.
    ///
    /// Nodes on a cycle are left out; the verifier reports them.
    pub fn order(&self) -> Vec<NodeId> {
        let mut missing: BTreeMap<NodeIndex<u32>, usize> =
            self.nodes.node_indices().map(|n| (n, self.nodes.edges_directed(n, Incoming).count())).collect();
        let mut ready: BinaryHeap<Reverse<NodeIndex<u32>>> =
            missing.iter().filter(|(_, count)| **count == 0).map(|(n, _)| Reverse(*n)).collect();
        let mut order = Vec::with_capacity(self.len());
        while let Some(Reverse(n)) = ready.pop() {
            order.push(NodeId(n));
            for edge in self.nodes.edges_directed(n, Outgoing) {
                let count = missing.get_mut(&edge.target()).expect("every node is counted");
                *count -= 1;
                if *count == 0 {
                    ready.push(Reverse(edge.target()));
                }
            }
        }
        order
    }

    /// The oldest node that `order` leaves out, if any.
    pub fn first_outside(&self, order: &[NodeId]) -> Option<NodeId> {
        self.nodes.node_indices().map(NodeId).find(|n| !order.contains(n))
    }
}
