//! The compiler as one path: load → build → passes → plan → emit → write.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tcc_backends::code::{EmitError, Function};
use tcc_backends::emit::{EmitOptions, InfoStrings};
use tcc_backends::image::{HashSlot, Image};
use tcc_ir::plan::Plan;
use tcc_ir::program::{Program, WeightStore};

use crate::arch::{self, BuildOptions};
use crate::blob;
use crate::emit;
use crate::error::Error;
use crate::exe;
use crate::golden;
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

/// A program with code for one target.
pub struct Back {
    pub target: Target,
    pub name: String,
    pub plan: Plan,
    /// Every kernel of the plan, shared by the images made from it.
    pub kernels: Vec<Function>,
    /// The object's code.
    pub image: Image,
    weights_inside: bool,
    /// Hashes known so far, for every image made from this plan.
    hashes: Vec<(HashSlot, [u8; 32])>,
}

/// Plans and emits `front` for `target` under the C prefix `name`; `weights_inside` objects find their weights
/// themselves.
pub fn back(
    front: &Front,
    target: &Target,
    name: &str,
    options: &PlanOptions,
    weights_inside: bool,
) -> Result<Back, Error> {
    let plan = plan::build(&front.program, &target.machine, options)?;
    let kernels = emit::kernels(&plan, target)?;
    let features = target.machine.desc.feature_names(plan.needs);
    let tokens = golden::tokens(&plan.facts);
    let image = emit::object(&plan, target, &kernels, &options_for(target, name, &features, &tokens, weights_inside))?;
    let (target, name) = (target.clone(), name.to_owned());
    let mut back = Back { target, name, plan, kernels, image, weights_inside, hashes: Vec::new() };
    let build = build_hash(&back.target, &back.image);
    back.set_hash(HashSlot::Model, model_hash(&front.program));
    back.set_hash(HashSlot::Build, build);
    Ok(back)
}

fn options_for<'a>(
    target: &'a Target,
    name: &'a str,
    features: &'a str,
    golden_tokens: &'a [u32],
    weights_inside: bool,
) -> EmitOptions<'a> {
    let info = InfoStrings { target: &target.triple, cpu_features: features, tcc_version: VERSION, licence: "" };
    EmitOptions { name, weights_inside, golden_tokens, op_hooks: false, info }
}

/// Identity of the code: the tool's version, the target, the profile if there is one, and the image as it is before
/// this hash is stored in it.
fn build_hash(target: &Target, image: &Image) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(VERSION.as_bytes());
    hash.update(target.triple.as_bytes());
    if let Some(profile) = &target.profile {
        hash.update(profile.text().as_bytes());
    }
    hash.update(&image.text);
    hash.finalize().into()
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
        let hash = write_blob(&self.plan, store, path, progress)?;
        self.set_hash(HashSlot::Weights, hash);
        Ok(())
    }

    /// Stores a hash in this and every later image.
    pub fn set_hash(&mut self, slot: HashSlot, hash: [u8; 32]) {
        self.image.set_hash(slot, hash);
        self.hashes.push((slot, hash));
    }

    /// Writes a static Linux executable to `path`, with the weights at `weights` inside.
    pub fn write_executable(&self, path: &Path, weights: &Path) -> Result<(), Error> {
        let mut produce = copy_of(weights);
        let source = WeightsSource { bytes: self.plan.weights_bytes, produce: &mut produce };
        Ok(exe::write(path, self.target.backend.elf(), &self.executable()?, source)?)
    }

    /// The code of an executable around the same kernels.
    pub fn executable(&self) -> Result<Image, Error> {
        self.with_options(|options| emit::executable(&self.plan, &self.target, &self.kernels, &options))
    }

    /// The code of an object that calls the hooks `op_begin` and `op_end`, around the same kernels.
    pub fn image_with_op_hooks(&self) -> Result<Image, Error> {
        let mut image = self.with_options(|options| {
            emit::object(&self.plan, &self.target, &self.kernels, &EmitOptions { op_hooks: true, ..options })
        })?;
        image.set_hash(HashSlot::Build, build_hash(&self.target, &image));
        Ok(image)
    }

    /// Makes another image of the same plan, with the hashes known so far.
    fn with_options(&self, make: impl FnOnce(EmitOptions<'_>) -> Result<Image, EmitError>) -> Result<Image, Error> {
        let features = self.target.machine.desc.feature_names(self.plan.needs);
        let tokens = golden::tokens(&self.plan.facts);
        let mut image = make(options_for(&self.target, &self.name, &features, &tokens, self.weights_inside))?;
        self.hashes.iter().for_each(|(slot, hash)| image.set_hash(*slot, *hash));
        Ok(image)
    }

    /// Writes the object to `path`; the weights at `weights` go into it, or nowhere.
    pub fn write_object(&self, path: &Path, weights: Option<&Path>) -> Result<(), Error> {
        self.write_image(&self.image, path, weights)
    }

    /// Writes the object of an image of this plan.
    pub fn write_image(&self, image: &Image, path: &Path, weights: Option<&Path>) -> Result<(), Error> {
        let elf = self.target.backend.elf();
        let note = self.note();
        let parts = |weights| ObjectParts { name: &self.name, elf, image, weights, note: &note };
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

/// Writes the weights blob of `plan` to `path`; its SHA-256.
pub fn write_blob(
    plan: &Plan,
    store: &dyn WeightStore,
    path: &Path,
    progress: impl FnMut(u64),
) -> Result<[u8; 32], Error> {
    let mut hash = Sha256::new();
    output::write_whole(path, output::Mode::Data, |out| {
        let mut hashed = Hashed { hash: &mut hash, out };
        blob::write(plan, store, &mut hashed, progress).map_err(Error::from)
    })?;
    Ok(hash.finalize().into())
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
