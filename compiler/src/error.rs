//! Every way a command can fail, with its exit status, its code for `tcc explain`, and what to do.

use std::io;
use std::path::PathBuf;

use serde_json::Value;
use tcc_backends::code::EmitError;
use tcc_backends::isa::matrix::lower::model::LowerError;
use tcc_backends::isa::matrix::sim::SimError;
use tcc_backends::isa::matrix::source::SourceError;
use tcc_ir::interp::InterpError;
use tcc_ir::program::WeightError;
use tcc_runtime::abi::Status;
use thiserror::Error;

use crate::arch::BuildError;
use crate::blob::BlobError;
use crate::load::error::LoadError;
use crate::matrix::object::ReadError;
use crate::matrix::tiles::TilesError;
use crate::object::ObjectError;
use crate::passes::PassError;
use crate::plan::PlanError;
use crate::profile::ProfileError;
use crate::schedule::ChooseError;
use crate::target::TargetError;

/// A failed command.
#[derive(Debug, Error)]
pub enum Error {
    #[error("{message}")]
    Usage { message: String, help: String },
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("'{}': {source}", path.display())]
    Profile { path: PathBuf, source: ProfileError },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Pass(#[from] PassError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Emit(#[from] EmitError),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Weight(#[from] WeightError),
    #[error(transparent)]
    Interp(#[from] InterpError),
    #[error("'{}' cannot be {action}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the compiled model returned {status}")]
    Status { status: Status },
    #[error("'{}' cannot be loaded: {reason}", path.display())]
    Module { path: PathBuf, reason: String },
    #[error("'{program}' is needed to run code of target '{target}' and was not found")]
    NoEmulator { program: String, target: &'static str },
    #[error("{program} ended with {ended}: {stderr}")]
    Child { program: String, ended: String, stderr: String },
    #[error(transparent)]
    Lower(#[from] LowerError),
    #[error("product '{product}' has no source: {source}")]
    Source { product: String, source: SourceError },
    #[error("the simulated machine stopped: {0}")]
    Simulator(#[from] SimError),
    #[error("'{}' cannot be used: {source}", path.display())]
    MatrixObject { path: PathBuf, source: ReadError },
    #[error("'{}', {source}", path.display())]
    Tiles { path: PathBuf, source: TilesError },
    #[error("{what}")]
    Text { what: String },
    #[error("{what} is {found}, the limit is {limit}")]
    Limit { what: String, found: String, limit: String },
    /// `result` is what the command prints as JSON, failed or not.
    #[error("{} {} the comparison:\n{}", failures.len(), if failures.len() == 1 { "finding fails" } else { "findings fail" }, failures.join("\n"))]
    Comparison { failures: Vec<String>, result: Value },
}

impl Error {
    /// An I/O error of `path` while it was `action` ("written", "read").
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { action, path, source }
    }

    /// A usage error with advice.
    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Error {
        Error::Usage { message: message.into(), help: help.into() }
    }

    /// Exit status of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage { .. } | Error::Target(_) | Error::Tiles { .. } => 2,
            Error::MatrixObject { source: ReadError::Hash, .. } => 6,
            Error::MatrixObject { .. } => 3,
            Error::Pass(PassError::Unknown { .. }) => 2,
            Error::Build(
                BuildError::Context { .. }
                | BuildError::Prefill { .. }
                | BuildError::Cache { .. }
                | BuildError::CodedCache { .. },
            ) => 2,
            Error::Interp(InterpError::Token { .. } | InterpError::Context { .. }) => 2,
            Error::Build(BuildError::Type(_) | BuildError::Verify(_)) => 1,
            Error::Load(_) | Error::Build(BuildError::Load(_)) | Error::Weight(_) | Error::Text { .. } => 3,
            Error::Interp(InterpError::Weight(_)) | Error::Pass(PassError::Weight(_)) => 3,
            Error::Profile { .. }
            | Error::Plan(PlanError::Schedule { .. })
            | Error::Emit(EmitError::NoKernel { .. }) => 3,
            Error::Lower(LowerError::Program(_)) | Error::Simulator(_) => 1,
            Error::Lower(_) | Error::Source { .. } => 3,
            Error::Comparison { .. } => 4,
            Error::Object(ObjectError::WeightsTooLarge { .. }) | Error::Limit { .. } => 5,
            Error::Status { status } => match *status {
                Status::TOKEN | Status::CTX_FULL | Status::ARG => 2,
                Status::HASH => 6,
                _ => 3,
            },
            Error::NoEmulator { .. } | Error::Child { .. } | Error::Module { .. } | Error::Io { .. } => 3,
            Error::Pass(PassError::Broken { .. } | PassError::Type { .. }) => 1,
            Error::Plan(PlanError::Unsupported { .. } | PlanError::Check(_)) => 1,
            Error::Emit(EmitError::Codegen { .. } | EmitError::Reloc { .. }) | Error::Emit(_) => 1,
            Error::Object(_) => 1,
        }
    }

    /// The code that `tcc explain` knows.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Usage { .. } | Error::Tiles { .. } => "TCC-E0101",
            Error::Target(_) => "TCC-E0102",
            Error::Io { .. } => "TCC-E0103",
            Error::Profile { .. } => "TCC-E0104",
            Error::Load(error) => error.code(),
            Error::Build(error) => error.code(),
            Error::Weight(_) => "TCC-E0219",
            Error::Pass(PassError::Unknown { .. }) => "TCC-E0301",
            Error::Pass(PassError::Weight(_)) => "TCC-E0219",
            Error::Pass(PassError::Broken { .. } | PassError::Type { .. }) => "TCC-E0302",
            Error::Plan(PlanError::Schedule {
                source: ChooseError::NoKernel { .. } | ChooseError::Group { .. },
                ..
            }) => "TCC-E0311",
            Error::Plan(PlanError::Schedule { source: ChooseError::TooLong { .. }, .. }) => "TCC-E0312",
            Error::Plan(_) => "TCC-E0313",
            Error::Emit(EmitError::NoKernel { .. }) => "TCC-E0401",
            Error::Emit(_) => "TCC-E0402",
            Error::Object(ObjectError::WeightsTooLarge { .. }) => "TCC-E0412",
            Error::Object(_) => "TCC-E0411",
            Error::Interp(InterpError::Weight(_)) => "TCC-E0219",
            Error::Interp(_) => "TCC-E0501",
            Error::Status { .. } => "TCC-E0502",
            Error::Module { .. } => "TCC-E0503",
            Error::NoEmulator { .. } => "TCC-E0504",
            Error::Child { .. } => "TCC-E0505",
            Error::Lower(_) | Error::Source { .. } => "TCC-E0403",
            Error::Simulator(_) => "TCC-E0507",
            Error::MatrixObject { .. } => "TCC-E0508",
            Error::Text { .. } => "TCC-E0506",
            Error::Limit { .. } => "TCC-E0601",
            Error::Comparison { .. } => "TCC-E0602",
        }
    }

    /// What the user can do about it, where there is an answer.
    pub fn help(&self) -> Option<String> {
        match self {
            Error::Usage { help, .. } => Some(help.clone()),
            Error::Target(error) => Some(error.help()),
            Error::Profile { .. } => Some("write one with `tcc tune -o FILE` on the machine it is for".into()),
            Error::Load(error) => error.help().map(str::to_owned),
            Error::Build(error) => error.help().map(str::to_owned),
            Error::NoEmulator { .. } => Some("install the Debian package qemu-user, or give -t host".into()),
            Error::Object(ObjectError::WeightsTooLarge { .. }) => Some("pass --weights file".into()),
            Error::Plan(PlanError::Schedule { source: ChooseError::Group { .. }, .. }) => {
                Some("leave out --encoding: one that fits is chosen".into())
            }
            Error::Status { status: Status::CTX_FULL } => Some("give a larger --ctx, or fewer tokens".into()),
            _ if self.exit_code() == 1 => Some("this is a bug in tcc; please report it with the command line".into()),
            _ => None,
        }
    }
}

impl From<BlobError> for Error {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Weight(error) => Error::Weight(error),
            BlobError::Io(source) => Error::Io { action: "written", path: PathBuf::from("weights"), source },
        }
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Error::Io { action: "written", path: PathBuf::from("output"), source }
    }
}
