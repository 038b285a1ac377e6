//! The compiler as one path: load → build → passes → plan → emit → write.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tcc_backends::image::{HashSlot, Image};
use tcc_ir::plan::Plan;
use tcc_ir::program::{Program, WeightStore};

use crate::arch::{self, BuildOptions};
use crate::blob;
use crate::emit;
use crate::error::Error;
use crate::model::Model;
use crate::object::{self, ObjectParts, WeightsSource};
use crate::output;
use crate::passes::{self, FoldedStore, PassCx};
use crate::plan::{self, PlanOptions};
use crate::target::Target;

/// The version that objects and headers state.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A model as an optimized program, the same for every target.
pub struct Front<'m> {
    pub program: Program,
    pub store: FoldedStore<'m>,
}

/// Loads nothing: builds the program of an opened model and runs the passes, up to `stop_after` if given.
/// `observe` sees the program after each pass.
pub fn front<'m>(
    model: &'m Model,
    options: &BuildOptions,
    stop_after: Option<&str>,
    mut observe: impl FnMut(&str, &Program),
) -> Result<Front<'m>, Error> {
    let (mut program, weights) = arch::build(model, options)?;
    observe("build", &program);
    let base_len = program.weights.len();
    let mut cx = PassCx { store: &weights, folded: Vec::new() };
    passes::run(&mut program, &mut cx, stop_after, |pass, program| observe(pass.name, program))?;
    let folded = cx.folded;
    Ok(Front { program, store: FoldedStore { base: Box::new(weights), base_len, folded } })
}

/// A program with code for one target. Weights are not made yet.
pub struct Back {
    pub target: Target,
    pub name: String,
    pub plan: Plan,
    pub image: Image,
}

/// Plans and emits `front` for `target` under the C prefix `name`.
pub fn back(front: &Front, target: &Target, name: &str, options: &PlanOptions) -> Result<Back, Error> {
    let plan = plan::build(&front.program, &target.machine, options)?;
    let image = emit::image(&plan, target, name, model_hash(&front.program))?;
    Ok(Back { target: target.clone(), name: name.to_owned(), plan, image })
}

/// Identity of the program: SHA-256 of its text form. Weights have a hash of their own.
fn model_hash(program: &Program) -> [u8; 32] {
    Sha256::digest(tcc_ir::text::print::program(program).as_bytes()).into()
}

impl Back {
    /// Writes the weights blob to `path` and stores its hash in the image.
    pub fn write_weights(
        &mut self,
        store: &dyn WeightStore,
        path: &Path,
        progress: impl FnMut(u64),
    ) -> Result<(), Error> {
        let mut hash = Sha256::new();
        output::write_whole(path, output::Mode::Data, |out| {
            let mut hashed = Hashed { hash: &mut hash, out };
            blob::write(&self.plan, store, &mut hashed, progress).map_err(Error::from)
        })?;
        self.image.set_hash(HashSlot::Weights, hash.finalize().into());
        Ok(())
    }

    /// Writes the object to `path`; the weights at `weights` go into it, or nowhere.
    pub fn write_object(&self, path: &Path, weights: Option<&Path>) -> Result<(), Error> {
        let elf = self.target.backend.elf();
        let note = self.note();
        let parts = |weights| ObjectParts { name: &self.name, elf, image: &self.image, weights, note: &note };
        match weights {
            None => object::write(path, parts(None))?,
            Some(file) => {
                let mut produce = copy_of(file);
                let source = WeightsSource { bytes: self.plan.weights_bytes, produce: &mut produce };
                object::write(path, parts(Some(source)))?;
            }
        }
        Ok(())
    }

    /// Lines of the object's note.
    fn note(&self) -> Vec<(&'static str, String)> {
        let desc = self.target.machine.desc;
        vec![
            ("name", self.name.clone()),
            ("target", self.target.triple.clone()),
            ("cpu_features", desc.feature_names(self.plan.needs)),
            ("tcc", VERSION.to_owned()),
        ]
    }
}

/// A producer that copies the file at `path`.
pub fn copy_of(path: &Path) -> impl FnMut(&mut dyn Write) -> io::Result<()> {
    let path: PathBuf = path.to_owned();
    move |out| io::copy(&mut File::open(&path)?, out).map(drop)
}

/// Hashes what passes through.
struct Hashed<'a> {
    hash: &'a mut Sha256,
    out: &'a mut dyn Write,
}

impl Write for Hashed<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.out.write(data)?;
        self.hash.update(&data[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
