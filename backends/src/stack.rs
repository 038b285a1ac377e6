//! The stack bound, proved on the call graph of the emitted code.
//!
//! **Invariant:** generated code has no recursion and no indirect call but hooks, so the deepest path is a number.

use std::collections::BTreeMap;

use crate::code::{EmitError, Function};

/// Deepest stack of each function, its callees included, without the caller's hooks.
pub struct StackBounds<'a> {
    functions: BTreeMap<&'a str, &'a Function>,
    /// Bytes of the deepest path below a function; present once it is known.
    known: BTreeMap<&'a str, u64>,
}

impl<'a> StackBounds<'a> {
    /// Bounds over `functions`.
    ///
    /// # Errors
    /// Recursion, and calls of functions that are not there.
    pub fn of(functions: &'a [Function]) -> Result<Self, EmitError> {
        let by_name = functions.iter().map(|f| (f.name.as_str(), f)).collect();
        let mut bounds = StackBounds { functions: by_name, known: BTreeMap::new() };
        for function in functions {
            bounds.visit(function, &mut Vec::new())?;
        }
        Ok(bounds)
    }

    /// Bytes of stack a call of `name` needs, or `None` for an unknown name.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.known.get(name).copied()
    }

    /// The largest bound of the functions that `counts` names, 0 if there is none.
    pub fn largest(&self, counts: impl Fn(&Function) -> bool) -> u64 {
        let counted = self.functions.iter().filter(|(_, function)| counts(function));
        counted.filter_map(|(name, _)| self.bytes(name)).max().unwrap_or(0)
    }

    fn visit(&mut self, function: &'a Function, path: &mut Vec<&'a str>) -> Result<u64, EmitError> {
        if let Some(bytes) = self.known.get(function.name.as_str()) {
            return Ok(*bytes);
        }
        if path.contains(&function.name.as_str()) {
            return Err(EmitError::Recursion { cycle: format!("{} → {}", path.join(" → "), function.name) });
        }
        path.push(&function.name);
        let mut deepest = 0;
        for callee in &function.calls {
            let callee = *self.functions.get(callee.as_str()).ok_or_else(|| EmitError::Reloc {
                function: function.name.clone(),
                symbol: callee.clone(),
                problem: "called but not part of the image".into(),
            })?;
            deepest = deepest.max(self.visit(callee, path)?);
        }
        path.pop();
        let bytes = deepest + u64::from(function.frame_bytes);
        self.known.insert(&function.name, bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, frame_bytes: u32, calls: &[&str]) -> Function {
        let calls = calls.iter().map(|c| (*c).to_string()).collect();
        Function { name: name.into(), frame_bytes, calls, is_code: true, ..Function::default() }
    }

    #[test]
    fn the_deepest_path_counts() {
        let functions = [
            function("top", 32, &["left", "right"]),
            function("left", 64, &["leaf"]),
            function("right", 80, &[]),
            function("leaf", 8, &[]),
        ];
        let bounds = StackBounds::of(&functions).expect("no recursion");
        assert_eq!(bounds.bytes("top"), Some(32 + 80));
        assert_eq!(bounds.bytes("left"), Some(72));
        assert_eq!(bounds.bytes("other"), None);
    }

    #[test]
    fn recursion_and_missing_callees_are_refused() {
        let cycle = [function("a", 8, &["b"]), function("b", 8, &["a"])];
        let error = StackBounds::of(&cycle).err().expect("recursive");
        assert_eq!(error.to_string(), "the call graph of the generated code is recursive: a → b → a");
        let missing = [function("a", 8, &["b"])];
        let error = StackBounds::of(&missing).err().expect("incomplete");
        assert_eq!(error.to_string(), "'a' refers to 'b', which is called but not part of the image");
    }
}
