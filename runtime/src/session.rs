//! Safe use of a compiled model: [`Model`] is its checked interface, [`Session`] one instance in an arena.
//!
//! **Invariant:** an instance's arena, weights and hooks outlive it: a session borrows all three.

use core::ffi::{CStr, c_char};
use core::marker::PhantomData;
use core::ptr;

use crate::abi::{ABI_MAJOR, Blob, Functions, HeadStats, Hooks, Info, Instance, Sampler, Status};

/// The interface of one compiled model, its version checked.
#[derive(Debug)]
pub struct Model {
    functions: Functions,
    info: Info,
    /// Weights outside the object.
    weights: Option<Blob>,
}

/// Hooks that are safe to hand to a session for `'a`.
#[derive(Clone, Copy, Debug)]
pub struct HookSet<'a> {
    hooks: Hooks,
    user: PhantomData<&'a ()>,
}

/// One instance of a model: weights shared, context its own.
#[derive(Debug)]
pub struct Session<'a> {
    model: &'a Model,
    instance: *mut Instance,
    arena: PhantomData<&'a mut [u8]>,
}

/// Tokens one after another; see [`Session::generate`].
#[derive(Debug)]
pub struct Generate<'s, 'a> {
    session: &'s mut Session<'a>,
    sampler: Sampler,
    /// Sampled, not yet evaluated.
    last: Option<u32>,
    over: bool,
}

/// What became of drafted tokens; see [`Session::eval_draft`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Tokens evaluated and kept, the first included.
    pub kept: usize,
    /// The token after them.
    pub next: u32,
}

impl Model {
    /// Asks the object what it is. `weights` is the blob of an object that has none inside.
    ///
    /// Fails with [`Status::ABI`] for another major version.
    ///
    /// # Safety
    /// `functions` are those of one object made by tcc; they and `weights` stay valid as long as the result.
    pub unsafe fn new(functions: Functions, weights: Option<Blob>) -> Result<Model, Status> {
        let mut info = Info::EMPTY;
        // SAFETY: `info` is a valid struct with its size set.
        unsafe { (functions.info)(&raw mut info) }.check()?;
        if info.abi_major != ABI_MAJOR {
            return Err(Status::ABI);
        }
        Ok(Model { functions, info, weights })
    }

    /// What the build is: sizes, hashes, limits.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The model's name in C symbols.
    pub fn name(&self) -> &str {
        self.text(self.info.name)
    }

    /// The target it was compiled for.
    pub fn target(&self) -> &str {
        self.text(self.info.target)
    }

    /// CPU features it needs, separated by commas.
    pub fn cpu_features(&self) -> &str {
        self.text(self.info.cpu_features)
    }

    /// Label of an op (`L07.ffn_down`), none past the last.
    pub fn op_name(&self, op: u32) -> Option<&str> {
        // SAFETY: any number is allowed.
        let label = unsafe { (self.functions.op_name)(op) };
        if label.is_null() { None } else { Some(self.text(label)) }
    }

    /// The object's sentence for a status.
    pub fn strerror(&self, status: Status) -> &str {
        // SAFETY: any status is allowed.
        self.text(unsafe { (self.functions.strerror)(status) })
    }

    /// Runs the golden prompt in `arena` and compares the logits' hash with the build's.
    pub fn self_test(&self, arena: &mut [u8], hooks: Option<&HookSet<'_>>) -> Result<(), Status> {
        let (weights, hooks) = (self.weights_pointer(), hooks_pointer(hooks));
        // SAFETY: the arena is exclusive for the call, weights and hooks outlive it.
        unsafe { (self.functions.self_test)(arena.as_mut_ptr().cast(), arena.len(), weights, hooks) }.check()
    }

    fn weights_pointer(&self) -> *const Blob {
        self.weights.as_ref().map_or(ptr::null(), ptr::from_ref)
    }

    /// A string of the object; empty for null or text that is not UTF-8.
    fn text(&self, text: *const c_char) -> &str {
        if text.is_null() {
            return "";
        }
        // SAFETY: the object's strings end in 0 and live in its read-only text, which outlives `self`.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("")
    }
}

impl HookSet<'_> {
    /// # Safety
    /// For the lifetime of the result, `hooks.user` and every hook are valid, and the hooks do what their types say;
    /// `parallel_for` runs each task exactly once before it returns.
    pub unsafe fn new(hooks: Hooks) -> Self {
        HookSet { hooks, user: PhantomData }
    }

    /// The same hooks with at most `threads` tasks at once: an object's `max_threads`.
    pub fn with_max_threads(mut self, threads: u32) -> Self {
        self.hooks.threads = self.hooks.threads.min(threads);
        self
    }

    /// The same hooks with `TCC_CPU_*` bits and vector bits stated instead of probed (0 = probe).
    pub fn with_cpu(mut self, cpu_features: u64, vlen: u32) -> Self {
        (self.hooks.cpu_features, self.hooks.vlen) = (cpu_features, vlen);
        self
    }

    /// Tasks run at once.
    pub fn threads(&self) -> u32 {
        self.hooks.threads
    }

    /// The hooks themselves, to wrap others around them.
    #[cfg(feature = "std")]
    pub(crate) fn raw(&self) -> Hooks {
        self.hooks
    }
}

fn hooks_pointer(hooks: Option<&HookSet<'_>>) -> *const Hooks {
    hooks.map_or(ptr::null(), |h| ptr::from_ref(&h.hooks))
}

impl<'a> Session<'a> {
    /// An instance at position 0 in `arena`, of at least `info().arena_bytes` and aligned to `info().arena_align`.
    /// Without hooks it runs on the calling thread.
    pub fn new(model: &'a Model, arena: &'a mut [u8], hooks: Option<&'a HookSet<'a>>) -> Result<Self, Status> {
        let mut instance = ptr::null_mut();
        let (weights, hooks) = (model.weights_pointer(), hooks_pointer(hooks));
        let (bytes, len) = (arena.as_mut_ptr().cast(), arena.len());
        // SAFETY: arena, weights and hooks are valid for 'a, which the session does not outlive.
        unsafe { (model.functions.init)(bytes, len, weights, hooks, &raw mut instance) }.check()?;
        Ok(Session { model, instance, arena: PhantomData })
    }

    pub fn model(&self) -> &'a Model {
        self.model
    }

    /// Position of the next token.
    pub fn pos(&self) -> u32 {
        // SAFETY: `instance` came from `init` and its arena is borrowed.
        unsafe { (self.model.functions.pos)(self.instance) }
    }

    /// Names of the CPU features of the code that runs, separated by commas.
    pub fn variant(&self) -> &str {
        // SAFETY: `instance` came from `init` and its arena is borrowed.
        self.model.text(unsafe { (self.model.functions.variant)(self.instance) })
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        // SAFETY: as in `pos`.
        unsafe { (self.model.functions.reset)(self.instance) }
    }

    /// Forgets the tokens at `pos` and after.
    pub fn rewind(&mut self, pos: u32) -> Result<(), Status> {
        // SAFETY: as in `pos`.
        unsafe { (self.model.functions.rewind)(self.instance, pos) }.check()
    }

    /// Evaluates at least one token. After an error the instance is as before.
    pub fn eval(&mut self, tokens: &[u32]) -> Result<(), Status> {
        // SAFETY: as in `pos`; the tokens are `tokens.len()` readable words.
        unsafe { (self.model.functions.eval)(self.instance, tokens.as_ptr(), tokens.len()) }.check()
    }

    /// Evaluates tokens and writes the logits of each: `out: f32[tokens, vocab]`, else [`Status::BUF`].
    pub fn eval_all(&mut self, tokens: &[u32], out: &mut [f32]) -> Result<(), Status> {
        if tokens.len().checked_mul(self.vocab()) != Some(out.len()) {
            return Err(Status::BUF);
        }
        let (n, functions) = (tokens.len(), &self.model.functions);
        // SAFETY: as in `eval`; `out` holds n · vocab floats.
        unsafe { (functions.eval_all)(self.instance, tokens.as_ptr(), n, out.as_mut_ptr()) }.check()
    }

    /// Evaluates `tokens[0]` and, in the same batch, the guesses behind it; keeps those that `sampler` chooses. State,
    /// sampler and tokens are those of [`Session::eval`] and [`Session::sample`] in turns, whatever is guessed.
    ///
    /// From 1 to `info().prefill` tokens, else [`Status::ARG`]. After an error instance and sampler are as before.
    pub fn eval_draft(&mut self, tokens: &[u32], sampler: &mut Sampler) -> Result<Draft, Status> {
        let mut draft = Draft { kept: 0, next: 0 };
        let (n, functions) = (tokens.len(), &self.model.functions);
        let (kept, next) = (&raw mut draft.kept, &raw mut draft.next);
        // SAFETY: as in `eval`; the sampler is a valid struct with its size set.
        unsafe { (functions.eval_draft)(self.instance, tokens.as_ptr(), n, sampler, kept, next) }.check()?;
        Ok(draft)
    }

    /// The exact logits of the last token, `f32[vocab]`.
    pub fn logits(&mut self) -> Result<&[f32], Status> {
        let mut logits = ptr::null();
        // SAFETY: as in `pos`.
        unsafe { (self.model.functions.logits)(self.instance, &raw mut logits) }.check()?;
        // SAFETY: on success `logits` points at vocab floats of the arena, unchanged until the next call that takes
        // `&mut self`, which the result's borrow prevents.
        Ok(unsafe { core::slice::from_raw_parts(logits, self.vocab()) })
    }

    /// One token after the last; advances the sampler's generator.
    pub fn sample(&mut self, sampler: &mut Sampler) -> Result<u32, Status> {
        let mut token = 0;
        // SAFETY: as in `pos`; the sampler is a valid struct with its size set.
        unsafe { (self.model.functions.sample)(self.instance, sampler, &raw mut token) }.check()?;
        Ok(token)
    }

    /// What the head has read since the session began.
    pub fn head_stats(&self) -> Result<HeadStats, Status> {
        let mut stats = HeadStats::EMPTY;
        // SAFETY: as in `pos`; the struct is valid with its size set.
        unsafe { (self.model.functions.head_stats)(self.instance, &raw mut stats) }.check()?;
        Ok(stats)
    }

    /// Evaluates `prompt`, then yields token after token. Each is evaluated when the next is asked for. The first
    /// error (such as [`Status::CTX_FULL`]) is yielded and ends the iteration.
    pub fn generate(&mut self, prompt: &[u32], sampler: Sampler) -> Result<Generate<'_, 'a>, Status> {
        self.eval(prompt)?;
        Ok(Generate { session: self, sampler, last: None, over: false })
    }

    fn vocab(&self) -> usize {
        // u32 to usize: every host of a session has 32 bits at least.
        self.model.info.vocab as usize
    }
}

impl Generate<'_, '_> {
    fn step(&mut self) -> Result<u32, Status> {
        if let Some(token) = self.last {
            self.session.eval(&[token])?;
        }
        self.session.sample(&mut self.sampler)
    }
}

impl Iterator for Generate<'_, '_> {
    type Item = Result<u32, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let token = self.step();
        self.last = token.ok();
        self.over = token.is_err();
        Some(token)
    }
}

impl core::iter::FusedIterator for Generate<'_, '_> {}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
