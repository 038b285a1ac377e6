//! Runs compiled code in this process.

use std::path::Path;

use tcc_backends::image::Image;
use tcc_ir::target::Features;
use tcc_runtime::arena::Arena;
use tcc_runtime::host;
use tcc_runtime::module::Module;
use tcc_runtime::pool::Pool;
use tcc_runtime::session::{HookSet, Session};

use crate::driver::{Back, Variant};
use crate::error::Error;
use crate::target::{self, TargetRequest};

/// A compiled model loaded into this process.
pub struct HostModel {
    module: Module,
    /// Features and vector bits that `init` is told, 0 where it asks the core.
    cpu: (u64, u32),
}

/// From this part of the context on, one in so many, an arena lies in huge pages. Attention then waits less for page
/// tables, but a head's positions lie together, so the first token commits the whole cache: a short use of a long context
/// would pay more for that than it gains.
const HUGE_PAGES_FROM: usize = 4;

/// Why code cannot run here.
pub enum HostError {
    /// It is for another instruction set, or for features this processor lacks.
    OtherMachine,
    Failed(Box<Error>),
}

impl From<Error> for HostError {
    fn from(error: Error) -> Self {
        HostError::Failed(Box::new(error))
    }
}

/// This machine's features, if some are among them that code cannot find out by itself; else 0.
fn granted() -> u64 {
    let request = TargetRequest { takes_granted: true, ..TargetRequest::default() };
    let here = target::resolve(&request, host::features).map(|target| target.machine);
    here.ok().filter(|here| here.features.and(here.desc.granted) != Features::NONE).map_or(0, |here| here.features.0)
}

impl HostModel {
    /// Loads the code of `back` with the weights at `weights`.
    pub fn load(back: &Back, weights: &Path) -> Result<Self, HostError> {
        Self::load_image(back, &back.image, weights)
    }

    /// Loads another image of `back`'s plan.
    pub fn load_image(back: &Back, image: &Image, weights: &Path) -> Result<Self, HostError> {
        if !back.target.runs_here {
            return Err(HostError::OtherMachine);
        }
        let folder = tempfile::tempdir().map_err(Error::from)?;
        let object = folder.path().join("model.o");
        back.write_image(image, &object, None)?;
        Ok(Self::open(&object, weights)?)
    }

    /// Loads an object made for this machine, without weights, and its weights file.
    pub fn open(object: &Path, weights: &Path) -> Result<Self, Error> {
        let module = Module::open(object, Some(weights))
            .map_err(|error| Error::Module { path: object.to_owned(), reason: error.to_string() })?;
        Ok(HostModel { module, cpu: (granted(), 0) })
    }

    /// The same model, run by the code of `variant`, whatever other code this machine can run.
    pub fn with_variant(self, variant: &Variant) -> Self {
        // `init` measures the length of vectors itself.
        HostModel { cpu: (variant.plan.needs.0, 0), ..self }
    }

    /// `hooks` with what `init` is told of the core.
    pub fn hooks<'a>(&self, hooks: HookSet<'a>) -> HookSet<'a> {
        hooks.with_cpu(self.cpu.0, self.cpu.1)
    }

    pub fn module(&self) -> &Module {
        &self.module
    }

    /// Memory for a session that reaches `positions` positions at most; decides on its pages.
    pub fn arena(&self, positions: usize) -> Result<Arena, Error> {
        let info = self.module.model().info();
        let arena = Arena::new(info.arena_bytes).map_err(Error::io("reserved", "memory for the arena"))?;
        let is_filled = positions.saturating_mul(HUGE_PAGES_FROM) >= info.ctx as usize;
        Ok(if is_filled { arena.in_huge_pages() } else { arena })
    }

    /// Logits of every token, `[tokens, vocab]`, on `threads` threads.
    pub fn logits(&self, tokens: &[u32], threads: u32) -> Result<Vec<f32>, Error> {
        let model = self.module.model();
        let info = model.info();
        let mut arena = self.arena(tokens.len())?;
        let pool = Pool::new(threads.min(info.max_threads)).map_err(Error::io("started", "a thread"))?;
        let hooks = self.hooks(pool.hooks());
        let mut session =
            Session::new(model, arena.bytes_mut(), Some(&hooks)).map_err(|status| Error::Status { status })?;
        let mut logits = vec![0.0; tokens.len() * info.vocab as usize];
        session.eval_all(tokens, &mut logits).map_err(|status| Error::Status { status })?;
        Ok(logits)
    }
}
