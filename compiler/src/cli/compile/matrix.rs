//! `tcc compile -t ascend`: an object of data for a matrix unit, its header, and its programs apart.

use serde_json::{Value, json};
use tcc_backends::isa::matrix::desc::NAME;
use tcc_backends::isa::matrix::program::{codec, text};

use super::{Emit, Golden, Job, Weights, not_for};
use crate::cli::args::MachineArgs;
use crate::cli::prepare;
use crate::cli::progress::Progress;
use crate::driver;
use crate::error::Error;
use crate::golden;
use crate::matrix::descriptor::{self, Descriptor, Digest};
use crate::matrix::object::{self, Parts};
use crate::matrix::{self, Compiled, header, inspect, source};
use crate::object::WeightsSource;
use crate::pieces;
use crate::report::{self, human};

/// Version of the report's layout.
const SCHEMA: u32 = 1;

impl Job<'_> {
    /// Makes every requested file for the matrix unit; returns the report.
    pub(super) fn matrix(&self, name: &str) -> Result<Value, Error> {
        let args = self.args;
        if args.weights == Weights::File {
            return Err(not_for(NAME, "weights are a section of the object"));
        }
        if args.emit.contains(&Emit::Exe) {
            return Err(not_for(NAME, "a matrix unit runs no executable"));
        }
        if args.op_hooks {
            return Err(not_for(NAME, "programs call no hooks: `tcc bench` has the cycles of each op"));
        }
        let machine = prepare::matrix_machine(&args.matrix)?;
        // What else is said of a machine is for the CPUs among the targets.
        let of_unit = MachineArgs { encoding: args.targets.machine.encoding.clone(), ..MachineArgs::default() };
        let options = prepare::matrix_options(&of_unit, &args.matrix)?;
        let bar = Progress::spinner(self.cx, format!("compiling for {}", machine.name));
        let mut compiled = matrix::build(self.front, &machine, &options)?;
        drop(bar);
        prepare::create_folder(&self.folder)?;
        let scratch = tempfile::Builder::new().prefix(".tcc-").tempdir_in(&self.folder)?;
        let weights = scratch.path().join("weights");
        let bytes = compiled.plan.weights_bytes;
        let bar = Progress::bytes(self.cx, "packing", bytes);
        let hash = driver::write_blob(&compiled.plan, &self.front.store, &weights, |done| bar.set(done))?;
        drop(bar);
        compiled.set_weights_hash(hash);
        let descriptor = Descriptor::new(name, &compiled.model, (bytes, hash), self.matrix_golden()?);
        let report = describe(&descriptor, &compiled);
        self.write_matrix(&descriptor, &compiled, &weights, &report)?;
        if !self.cx.quiet {
            let records: usize = compiled.model.programs().map(|body| body.records()).sum();
            eprintln!(
                "   {}  {name} for {} of {NAME}\n weights {}   {records} records   tables and state {}",
                self.folder.join(name).display(),
                machine.name,
                human(bytes),
                human(compiled.model.head.program.gm_bytes() - bytes),
            );
        }
        Ok(report)
    }

    /// The hash that the interpreter gives.
    fn matrix_golden(&self) -> Result<Option<descriptor::Golden>, Error> {
        if self.args.golden == Golden::Off {
            return Ok(None);
        }
        let _bar = Progress::spinner(self.cx, "golden run");
        let tokens = golden::tokens(&self.front.program.facts);
        let logits = golden::interpret(self.front, &tokens)?;
        Ok(Some(descriptor::Golden { sha256: Digest(golden::hash(&logits)), tokens }))
    }

    fn write_matrix(
        &self,
        descriptor: &Descriptor,
        compiled: &Compiled,
        weights: &std::path::Path,
        report: &Value,
    ) -> Result<(), Error> {
        let (name, model) = (&descriptor.name, &compiled.model);
        for emit in &self.args.emit {
            match emit {
                Emit::Obj => {
                    let mut produce = driver::copy_of(weights);
                    let weights = WeightsSource { bytes: descriptor.weights_bytes, produce: &mut produce };
                    let parts = Parts { descriptor, model, choices: &compiled.choices, weights };
                    object::write(&self.path(name, ".o"), parts)?;
                }
                Emit::Header => self.text(name, ".h", &header::text(descriptor, model))?,
                Emit::Program => {
                    for body in model.programs() {
                        let path = self.path(name, &format!(".{}.dvp", body.program.name));
                        prepare::write_file(&path, &codec::encode(&body.program))?;
                    }
                }
                Emit::Source => {
                    for (suffix, source) in source::products(compiled)? {
                        self.text(name, &suffix, &source)?;
                    }
                }
                Emit::Asm => {
                    for body in model.programs() {
                        self.text(name, &format!(".{}.s", body.program.name), &text::print(&body.program))?;
                    }
                }
                Emit::Exe => unreachable!("refused before anything is made"),
                Emit::Ir => self.ir(name)?,
                Emit::Dot => self.dot(name)?,
                Emit::Report => self.text(name, ".report.json", &format!("{report:#}\n"))?,
                Emit::Pieces => self.text(name, "_pieces.h", &pieces::header(name, self.model)?)?,
            }
        }
        Ok(())
    }
}

fn describe(descriptor: &Descriptor, compiled: &Compiled) -> Value {
    let programs = compiled.model.programs().zip(descriptor.entries()).map(|(body, entry)| {
        json!({ "name": body.program.name, "section": entry.section, "m": body.m, "records": body.records(),
                "weights_bytes": body.weights_bytes })
    });
    let tiles = compiled.choices.iter().map(|choice| {
        json!({ "product": choice.product.to_string(), "tile": choice.decision.map(|t| t.to_string()),
                "steps": choice.steps })
    });
    json!({
        "schema": SCHEMA, "descriptor": descriptor, "target": NAME,
        "ram": report::ram(&compiled.plan),
        "memory": inspect::symbols(&compiled.model.head.program),
        "programs": programs.collect::<Vec<_>>(),
        "tiles": tiles.collect::<Vec<_>>(),
    })
}
