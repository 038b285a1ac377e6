//! Argument groups that several commands share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::arch::build::DEFAULT_PREFILL;

/// Most tasks an object runs at once unless the user says otherwise.
pub const DEFAULT_MAX_THREADS: u32 = 8;

/// Which model, and how to read it.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// Folder with config.json, a `*.safetensors.index.json`, or a `.safetensors` file with config.json beside it
    #[arg(value_name = "MODEL", value_hint = clap::ValueHint::AnyPath)]
    pub model: PathBuf,

    /// What to do with matrices that are not ternary
    #[arg(long, value_enum, default_value_t = Dense::Refuse, help_heading = "Model")]
    pub dense: Dense,

    /// Activations of ternary products [default: as the family was trained]
    #[arg(long, value_enum, help_heading = "Model")]
    pub activations: Option<ActivationsArg>,

    /// Context length, tokens [default: the model's, at most 4096]
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub ctx: Option<usize>,

    /// Largest number of prompt tokens per step: fewer need less RAM, more read weights less often
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PREFILL, help_heading = "Model")]
    pub prefill: usize,

    /// Element type of the KV cache
    #[arg(long, value_enum, default_value_t = Kv::F16, help_heading = "Model")]
    pub kv: Kv,

    /// How the head is stored and read; the lossy ones change logits and tokens
    #[arg(long, value_enum, default_value_t = Head::Auto, help_heading = "Model")]
    pub head: Head,
}

/// Which machine.
#[derive(Args, Clone, Debug, Default)]
pub struct MachineArgs {
    /// CPU whose features may be used (`tcc targets` lists them)
    #[arg(long, value_name = "CPU", help_heading = "Target")]
    pub cpu: Option<String>,

    /// Feature changes: +a,-b
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, help_heading = "Target")]
    pub features: Option<String>,

    /// One object for several kinds of cores, chosen at init: `baseline`, features and CPUs, joined by +
    #[arg(long, value_name = "VARIANT,…", value_delimiter = ',', help_heading = "Target")]
    pub variants: Vec<String>,

    /// Vector register bits, where the instruction set leaves them open: kernels for these alone, if there are any, and a
    /// core of another length is refused [default: any]
    #[arg(long, value_name = "BITS", default_value_t = 0, help_heading = "Target", hide_default_value = true)]
    pub vlen: u32,

    /// Encoding of ternary weights [default: chosen by the cost model]
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub encoding: Option<String>,

    /// Measured rates of the machine, as `tcc tune` writes them [default: the target's description]
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub profile: Option<PathBuf>,
}

impl MachineArgs {
    /// True if anything was given that only a CPU has.
    pub fn is_for_cpu(&self) -> bool {
        let MachineArgs { cpu, features, variants, vlen, encoding: _, profile } = self;
        cpu.is_some() || features.is_some() || !variants.is_empty() || *vlen > 0 || profile.is_some()
    }
}

/// `--head`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Head {
    /// `screened` for heads of 32 MiB and more, else `exact`
    #[default]
    Auto,
    /// The same tokens: 4.5 bits of each weight are read, then more of some rows; 7.1 bits more are stored
    Screened,
    /// Every weight of the head is read for every token
    Exact,
    /// Lossy: 8 bits per weight with a scale per row; a tied embedding too
    Int8,
    /// Lossy: 4.5 bits per weight, in groups of 32; a tied embedding too
    Int4,
}

/// Which matrix unit, and what is decided for it.
#[derive(Args, Clone, Debug, Default)]
pub struct MatrixArgs {
    /// Machine of `-t ascend`: a preset (`tcc targets` lists them) or a machine file
    #[arg(long = "machine", value_name = "NAME|FILE", help_heading = "Matrix unit")]
    pub machine: Option<String>,

    #[command(flatten)]
    pub rates: RateArgs,

    /// Tiles of products, as `tcc inspect MODEL --schedules -t ascend` prints them [default: the fastest of a search]
    #[arg(long, value_name = "FILE", help_heading = "Matrix unit")]
    pub tiles: Option<PathBuf>,
}

impl MatrixArgs {
    /// True if anything was given.
    pub fn is_given(&self) -> bool {
        let MatrixArgs { machine, rates, tiles } = self;
        machine.is_some() || rates.is_given() || tiles.is_some()
    }
}

/// How fast a matrix unit is.
#[derive(Args, Clone, Debug, Default)]
pub struct RateArgs {
    /// Clock of a matrix unit [default: the machine's, where it is published]
    #[arg(long, value_name = "HZ", help_heading = "Matrix unit")]
    pub clock: Option<f64>,

    /// Bytes per second of its DDR or HBM [default: the machine's, where they are published]
    #[arg(long, value_name = "B/S", help_heading = "Matrix unit")]
    pub gm_rate: Option<f64>,

    /// Table of vector costs, where a machine has several [default: the machine's]
    #[arg(long, value_name = "TABLE", help_heading = "Matrix unit")]
    pub costs: Option<String>,
}

impl RateArgs {
    /// True if anything was given.
    pub fn is_given(&self) -> bool {
        let RateArgs { clock, gm_rate, costs } = self;
        clock.is_some() || gm_rate.is_some() || costs.is_some()
    }
}

/// Which variant of an object that has several.
#[derive(Args, Clone, Debug, Default)]
pub struct VariantArgs {
    /// With --variants, the one that runs [default: as init chooses here; where code is emulated, the best]
    #[arg(long, value_name = "VARIANT", help_heading = "Target")]
    pub variant: Option<String>,
}

/// Which machines, for commands that take several.
#[derive(Args, Clone, Debug)]
pub struct TargetsArgs {
    /// host, a short name (`tcc targets` lists them), or a full triple; repeats
    #[arg(short, long, value_name = "TARGET", help_heading = "Target")]
    pub target: Vec<String>,

    #[command(flatten)]
    pub machine: MachineArgs,

    /// Most tasks that may run at once
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_THREADS, help_heading = "Target")]
    pub threads: u32,
}

impl TargetsArgs {
    /// The targets asked for; `None` is this machine.
    pub fn requested(&self) -> Vec<Option<&str>> {
        match self.target.is_empty() {
            true => vec![None],
            false => self.target.iter().map(|t| Some(t.as_str())).collect(),
        }
    }
}

/// `--dense`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dense {
    /// An error that names the tensor
    Refuse,
    /// Compile them as they are
    Keep,
}

/// `--activations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ActivationsArg {
    Int8,
    Float,
}

/// `--kv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kv {
    F32,
    F16,
    /// Codes of eight bits, and one scale for each token and head
    Int8,
}

/// One argument that holds token ids.
#[derive(Clone, Debug)]
pub struct Ids(pub Vec<u32>);

/// Token ids separated by commas.
pub fn parse_ids(text: &str) -> Result<Ids, String> {
    let id = |id: &str| id.trim().parse().map_err(|_| format!("'{id}' is not a token id"));
    text.split(',').map(id).collect::<Result<_, _>>().map(Ids)
}
