//! The compiler as one path: load → build → passes → plan → emit → write.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tcc_backends::code::{EmitError, Function};
use tcc_backends::emit::{self as backend, EmitOptions, InfoStrings};
use tcc_backends::image::{self, HashSlot, Image, Symbol, SymbolKind};
use tcc_ir::plan::Plan;
use tcc_ir::program::{Program, WeightStore};
use tcc_ir::target::Features;

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
use crate::plan::layout::{self, Sharing};
use crate::plan::{self, PlanOptions};
use crate::schedule::density;
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
    /// One, or several where `init` chooses: in the order in which it tries them, best first.
    pub variants: Vec<Variant>,
    /// The object's code.
    pub image: Image,
    weights_inside: bool,
    /// Hashes known so far, for every image made from this plan.
    hashes: Vec<(HashSlot, [u8; 32])>,
}

/// The code for cores with some features.
pub struct Variant {
    /// As it was asked for; the names of the features where the target has one variant.
    pub name: String,
    pub plan: Plan,
    /// What it pays for weights that all variants read.
    pub sharing: Sharing,
    /// Every kernel of the plan, shared by the images made from it.
    pub kernels: Vec<Function>,
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
    let machines = target.machines();
    let just_machines: Vec<_> = machines.iter().map(|(_, machine)| *machine).collect();
    let densities = density::of_program(&front.program, &front.store, &just_machines, options.encoding)?;
    let plans = plan::build_all(&front.program, &just_machines, options, &densities)?;
    let mut variants = Vec::new();
    for ((name, machine), plan) in machines.into_iter().zip(plans) {
        let sharing = layout::sharing(&front.program, &plan, &machine, &densities)?;
        variants.push(Variant { name, sharing, kernels: emit::kernels(&plan, target)?, plan });
    }
    // The fastest first; of equals that with more features, so that no variant hides one that needs more.
    let rank = |v: &Variant| (plan::product_cycles(&v.plan), std::cmp::Reverse(v.plan.needs.0.count_ones()));
    variants.sort_by(|a, b| {
        let ((a, more_a), (b, more_b)) = (rank(a), rank(b));
        a.total_cmp(&b).then(more_a.cmp(&more_b))
    });
    let (target, name, image) = (target.clone(), name.to_owned(), Image::default());
    let mut back = Back { target, name, variants, image, weights_inside, hashes: Vec::new() };
    back.image =
        back.with_options(|variants, options| backend::emit_object(back.target.backend, variants, &options))?;
    let build = build_hash(&back.target, &back.image);
    back.set_hash(HashSlot::Model, model_hash(&front.program));
    back.set_hash(HashSlot::Build, build);
    Ok(back)
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

impl Variant {
    /// Names of the features it needs, joined by commas.
    pub fn features(&self, target: &Target) -> String {
        target.machine.desc.feature_names(self.plan.needs)
    }
}

impl Back {
    /// The plan of the first variant. Weights, arena, facts and labels are those of every variant.
    pub fn plan(&self) -> &Plan {
        &self.variants[0].plan
    }

    /// The variant called `name`.
    pub fn variant(&self, name: &str) -> Result<&Variant, Error> {
        let found = self.variants.iter().find(|v| v.name == name);
        found.ok_or_else(|| {
            let known: Vec<_> = self.variants.iter().map(|v| v.name.as_str()).collect();
            Error::usage(format!("there is no variant '{name}'"), format!("known: {}", known.join(", ")))
        })
    }

    /// Bytes of code that `variant` has beyond the variants before it and what all share; all of the object's where it is
    /// the only one.
    pub fn own_code_bytes(&self, variant: &Variant) -> u64 {
        if self.variants.len() == 1 {
            return self.image.text.len() as u64;
        }
        let own = |s: &&Symbol| s.kind != SymbolKind::Label && image::in_variant(&s.name, &variant.name) != s.name;
        self.image.symbols.iter().filter(own).map(|s| s.bytes).sum()
    }

    /// The CPU features that every variant needs.
    pub fn needs(&self) -> Features {
        self.variants.iter().fold(self.plan().needs, |needs, v| needs.and(v.plan.needs))
    }

    /// Writes the weights blob to `path` and stores its hash in the image.
    pub fn write_weights(
        &mut self,
        store: &dyn WeightStore,
        path: &Path,
        progress: impl FnMut(u64),
    ) -> Result<(), Error> {
        let hash = write_blob(self.plan(), store, path, progress)?;
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
        let source = WeightsSource { bytes: self.plan().weights_bytes, produce: &mut produce };
        Ok(exe::write(path, self.target.backend.elf(), &self.executable()?, source)?)
    }

    /// The code of an executable around the same kernels.
    pub fn executable(&self) -> Result<Image, Error> {
        self.with_options(|variants, options| backend::emit_executable(self.target.backend, variants, &options))
    }

    /// The code of an object that calls the hooks `op_begin` and `op_end`, around the same kernels.
    pub fn image_with_op_hooks(&self) -> Result<Image, Error> {
        let mut image = self.with_options(|variants, options| {
            backend::emit_object(self.target.backend, variants, &EmitOptions { op_hooks: true, ..options })
        })?;
        image.set_hash(HashSlot::Build, build_hash(&self.target, &image));
        Ok(image)
    }

    /// Makes another image of the same variants, with the hashes known so far.
    fn with_options(
        &self,
        make: impl FnOnce(&[backend::Variant<'_>], EmitOptions<'_>) -> Result<Image, EmitError>,
    ) -> Result<Image, Error> {
        let (target, desc) = (&self.target, self.target.machine.desc);
        let features: Vec<_> = self.variants.iter().map(|v| v.features(target)).collect();
        let variants = self.variants.iter().zip(&features);
        let variants: Vec<_> = variants
            .map(|(v, features)| backend::Variant { name: &v.name, features, plan: &v.plan, kernels: &v.kernels })
            .collect();
        let (needs, golden_tokens) = (desc.feature_names(self.needs()), golden::tokens(&self.plan().facts));
        let info = InfoStrings { target: &target.triple, cpu_features: &needs, tcc_version: VERSION, licence: "" };
        let options = EmitOptions {
            name: &self.name,
            weights_inside: self.weights_inside,
            golden_tokens: &golden_tokens,
            op_hooks: false,
            info,
        };
        let mut image = make(&variants, options)?;
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
                let source = WeightsSource { bytes: self.plan().weights_bytes, produce: &mut produce };
                object::write(path, parts(Some(source)))?;
            }
        }
        Ok(())
    }

    /// Lines of the object's note.
    fn note(&self) -> Vec<(&'static str, String)> {
        let desc = self.target.machine.desc;
        let mut note = vec![
            ("name", self.name.clone()),
            ("target", self.target.triple.clone()),
            ("cpu_features", desc.feature_names(self.needs())),
            ("tcc", VERSION.to_owned()),
        ];
        if self.variants.len() > 1 {
            let variant = |v: &Variant| format!("{}:{}", v.name, v.features(&self.target));
            note.push(("variants", self.variants.iter().map(variant).collect::<Vec<_>>().join(" ")));
        }
        note.extend(self.plan().lossy_head().map(|code| ("lossy_head", code.name().to_owned())));
        note
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
