//! A plan: everything chosen. Ordered steps over a fixed arena and a fixed weights blob.

use crate::coded::{CodedLayout, RowCode};
use crate::encoding::Encoding;
use crate::kernel::KernelSpec;
use crate::program::{ModelFacts, StateId, WeightId};
use crate::screen::ScreenLayout;
use crate::target::Features;

/// Alignment of every buffer in the arena and every tensor in the weights blob, bytes.
pub const BUFFER_ALIGN: usize = 64;

/// Alignment of the weights blob, bytes: the largest page size in common use.
pub const WEIGHTS_ALIGN: usize = 16384;

/// How a weight's bytes are laid out in the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightLayout {
    /// Row-major, little endian, as declared.
    Plain,
    /// Trits packed by an encoding.
    Packed(Encoding),
    /// Rows coded as small integers: lossy.
    Coded(CodedLayout),
    /// The screen of a dense head, beside the rows themselves, which are [`WeightLayout::Plain`].
    Screen(ScreenLayout),
}

/// One tensor in the weights blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSlot {
    pub id: WeightId,
    pub layout: WeightLayout,
    pub offset_bytes: u64,
    pub bytes: u64,
}

/// What an operand word of a step holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arg {
    /// Address of byte `0` of the weights blob plus this offset.
    Weight { offset_bytes: u64 },
    /// Address of an activation buffer: this offset in the arena.
    Arena { offset_bytes: u64 },
    /// Address of the chunk's token ids (u32), in the arena.
    Tokens,
    /// Address of the hidden rows the body leaves (bodies: output; head: its one input row).
    Hidden,
    /// Address of the logits (head: output).
    Logits,
}

/// Index into [`Plan::kernels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelId(pub u32);

/// Most steps that run at the same time.
pub const MAX_JOINED: usize = 3;

/// One kernel call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub kernel: KernelId,
    /// One per operand of the kernel's spec.
    pub args: Vec<Arg>,
    /// Op label (`L07.ffn_down`).
    pub label: String,
    /// True where `should_stop` is asked before the step (once a layer).
    pub layer_start: bool,
    /// True where the step may run at the same time as the one before it and those that that one is joined to; with it they
    /// are at most [`MAX_JOINED`], and none touches what another writes.
    pub joined: bool,
    /// Bytes read and written, for reports and for the choice to run serially.
    pub bytes: u64,
}

/// The steps of one graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepList {
    pub name: String,
    pub m: usize,
    pub steps: Vec<Step>,
}

/// The search for the best tokens of one hidden row without computing every logit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    pub layout: ScreenLayout,
    /// What the head does before its product, then the four steps of `ScreenKernel`, in order.
    pub list: StepList,
    /// Where the screen lies in the weights blob.
    pub screen_offset: u64,
    /// Where the query, the panels' largest, and the panels' counts lie in the arena.
    pub query_offset: u64,
    pub maxima_offset: u64,
    pub counts_offset: u64,
}

impl Search {
    /// Steps of [`Search::list`] that are the screen's.
    pub const LEVELS: usize = 4;

    /// Most tokens that are searched for at once: with more, most rows are read anyway.
    pub const MAX_COUNT: usize = 256;

    /// Most tokens that this search finds.
    pub fn max_count(&self) -> usize {
        self.layout.panels().min(Self::MAX_COUNT)
    }
}

/// Token rows that the head takes in one pass over its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadRows {
    /// Most of them, at least 1.
    pub most: usize,
    /// Rows of logits, at most `most`, that fit the arena behind the head's own activations once a body has run, and
    /// where they lie. None where the plan has a search: its steps run between their uses, on the same memory.
    pub kept: usize,
    pub kept_offset: u64,
}

/// A KV cache in the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSlot {
    pub id: StateId,
    pub offset_bytes: u64,
    pub bytes: u64,
}

/// Offsets and sizes of the arena's parts, in order: state, logits, kv, activations, scratch. All multiples of 64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArenaPlan {
    /// Instance block; its layout belongs to the backends.
    pub state_bytes: u64,
    pub logits_offset: u64,
    pub logits_bytes: u64,
    pub kv_offset: u64,
    pub kv_bytes: u64,
    pub act_offset: u64,
    pub act_bytes: u64,
    /// `u32[prefill]`, within the activations part.
    pub tokens_offset: u64,
    /// `f32[prefill, hidden]`, within the activations part and outside liveness: the head reads it later.
    pub hidden_offset: u64,
    /// The last token's hidden row `f32[hidden]`, kept until the next eval.
    pub kept_hidden_offset: u64,
    pub scratch_offset: u64,
    pub scratch_bytes_per_thread: u64,
    pub max_threads: u32,
}

impl ArenaPlan {
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch_bytes_per_thread * u64::from(self.max_threads)
    }

    /// The arena that holds what either needs: of each part the larger. Only activations at their end and scratch may
    /// differ, for offsets in all other parts are those of both.
    pub fn or(&self, other: &ArenaPlan) -> ArenaPlan {
        let act_bytes = self.act_bytes.max(other.act_bytes);
        let arena = ArenaPlan {
            act_bytes,
            scratch_offset: self.act_offset + act_bytes,
            scratch_bytes_per_thread: self.scratch_bytes_per_thread.max(other.scratch_bytes_per_thread),
            ..self.clone()
        };
        let fixed = |arena: &ArenaPlan| ArenaPlan {
            act_bytes: 0,
            scratch_offset: 0,
            scratch_bytes_per_thread: 0,
            ..arena.clone()
        };
        assert_eq!(fixed(self), fixed(other), "arenas of one program");
        arena
    }

    /// Bytes of the whole arena: the sum of the five parts.
    pub fn total_bytes(&self) -> u64 {
        self.state_bytes + self.logits_bytes + self.kv_bytes + self.act_bytes + self.scratch_bytes()
    }
}

/// A program with every choice made for one target.
#[derive(Clone, Debug)]
pub struct Plan {
    pub facts: ModelFacts,
    /// CPU features the object needs: the baseline and what its kernels declare.
    pub needs: Features,
    /// Vector register bits the object needs exactly, 0 = any (targets with vectors of unknown length).
    pub vlen: u32,
    pub kernels: Vec<KernelSpec>,
    /// Ascending in m; the first is decode.
    pub bodies: Vec<StepList>,
    pub head: StepList,
    pub head_rows: HeadRows,
    /// How sampling finds the best tokens; `None` where it computes every logit.
    pub search: Option<Search>,
    pub weights: Vec<WeightSlot>,
    /// Bytes of the weights blob, a multiple of 64.
    pub weights_bytes: u64,
    pub states: Vec<StateSlot>,
    pub arena: ArenaPlan,
}

impl Plan {
    pub fn kernel(&self, id: KernelId) -> &KernelSpec {
        &self.kernels[id.0 as usize]
    }

    /// How the head's rows are stored where that is lossy; its logits are not those of the model then.
    pub fn lossy_head(&self) -> Option<RowCode> {
        self.head.steps.iter().find_map(|step| match self.kernel(step.kernel) {
            KernelSpec::CodedMatmul { table } => Some(table.code),
            _ => None,
        })
    }

    /// Every step list: the bodies, then the head, then the search.
    pub fn lists(&self) -> impl Iterator<Item = &StepList> {
        self.bodies.iter().chain([&self.head]).chain(self.search.iter().map(|search| &search.list))
    }

    pub fn prefill(&self) -> usize {
        self.bodies.last().map_or(1, |b| b.m)
    }
}
