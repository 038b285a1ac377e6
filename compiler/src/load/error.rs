//! What can be wrong with a model's files: one variant per finding, each with its code for `tcc explain`.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a model could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("'{}' cannot be read: {source}", file.display())]
    Io { file: PathBuf, source: io::Error },
    #[error("'{}' is not a model: {found}", path.display())]
    NotAModel { path: PathBuf, found: String },
    #[error("'{}' is not a safetensors file: found {found}, expected {expected}", file.display())]
    Header { file: PathBuf, found: String, expected: String },
    #[error("tensor '{tensor}' in '{}' has {found}, expected {expected}", file.display())]
    TensorRange { file: PathBuf, tensor: String, found: String, expected: String },
    #[error("tensor '{tensor}' is stored twice: in '{}' and in '{}'", file.display(), other.display())]
    DuplicateTensor { tensor: String, file: PathBuf, other: PathBuf },
    #[error("index '{}': shard '{shard}' {found}, expected {expected}", index.display())]
    Shard { index: PathBuf, shard: String, found: String, expected: String },
    #[error("tensor '{tensor}' is in '{}', but the index places it in {expected}", file.display())]
    WrongShard { tensor: String, file: PathBuf, expected: String },
    #[error("'{}' is not valid JSON: {found}", file.display())]
    Json { file: PathBuf, found: String },
    #[error("'{}': key '{key}' is {found}, expected {expected}", file.display())]
    Config { file: PathBuf, key: String, found: String, expected: String },
    #[error("'{}': {key} '{found}' is not supported, expected one of {}", file.display(), known.join(", "))]
    Unknown { file: PathBuf, key: String, found: String, known: Vec<String> },
    #[error("tensor '{tensor}' is missing from '{}', expected {expected}", file.display())]
    Missing { file: PathBuf, tensor: String, expected: String },
    #[error("tensor '{tensor}' in '{}' is {found}, expected {expected}", file.display())]
    Tensor { file: PathBuf, tensor: String, found: String, expected: String },
    #[error("tensor '{tensor}' in '{}' has code 3 at row {row}, column {column}, expected codes 0, 1 and 2", file.display())]
    Code { file: PathBuf, tensor: String, row: usize, column: usize },
    #[error("tensor '{tensor}' in '{}' holds {found} at element {element}, expected {expected}", file.display())]
    Value { file: PathBuf, tensor: String, element: usize, found: String, expected: String },
    #[error("tensor '{tensor}' in '{}' has no '{scale}', expected a scale of one positive number", file.display())]
    ScaleMissing { file: PathBuf, tensor: String, scale: String },
    #[error("tensor '{tensor}' in '{}' belongs to nothing, expected {expected}", file.display())]
    Leftover { file: PathBuf, tensor: String, expected: String },
    #[error("tensor '{tensor}' in '{}' is {found} and not ternary, expected values scale · {{-1, 0, 1}}", file.display())]
    NotTernary { file: PathBuf, tensor: String, found: String },
    #[error(
        "'{tensor}' in '{}' differs from '{table}' from element {element} on, expected equal tensors because \
         tie_word_embeddings is true", file.display()
    )]
    TiedHead { file: PathBuf, tensor: String, table: String, element: usize },
}

impl LoadError {
    /// The code that `tcc explain` knows.
    pub fn code(&self) -> &'static str {
        match self {
            LoadError::Io { .. } => "TCC-E0201",
            LoadError::NotAModel { .. } => "TCC-E0202",
            LoadError::Header { .. } => "TCC-E0203",
            LoadError::TensorRange { .. } => "TCC-E0204",
            LoadError::DuplicateTensor { .. } => "TCC-E0205",
            LoadError::Shard { .. } => "TCC-E0206",
            LoadError::WrongShard { .. } => "TCC-E0207",
            LoadError::Json { .. } => "TCC-E0208",
            LoadError::Config { .. } => "TCC-E0209",
            LoadError::Unknown { .. } => "TCC-E0210",
            LoadError::Missing { .. } => "TCC-E0211",
            LoadError::Tensor { .. } => "TCC-E0212",
            LoadError::Code { .. } => "TCC-E0213",
            LoadError::Value { .. } => "TCC-E0214",
            LoadError::ScaleMissing { .. } => "TCC-E0215",
            LoadError::Leftover { .. } => "TCC-E0216",
            LoadError::NotTernary { .. } => "TCC-E0217",
            LoadError::TiedHead { .. } => "TCC-E0218",
        }
    }

    /// What the user can do about it, where there is a general answer.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            LoadError::NotAModel { .. } => {
                Some("give a folder with config.json and model.safetensors, a shard index, or one .safetensors file")
            }
            LoadError::Header { .. } | LoadError::TensorRange { .. } => {
                Some("the file is damaged or was not fully downloaded; fetch it again")
            }
            LoadError::Shard { .. } | LoadError::WrongShard { .. } => {
                Some("fetch the index and every shard of one revision of the model into one folder")
            }
            LoadError::Missing { .. } => Some("check that config.json and the tensors belong to the same model"),
            LoadError::Tensor { .. } => Some("check that config.json describes this checkpoint"),
            LoadError::Code { .. } => Some("the weights are damaged or packed in another layout"),
            LoadError::ScaleMissing { .. } => Some("packed weights need their weight_scale; convert the model again"),
            LoadError::Leftover { .. } => Some("ignoring a tensor would change the result, so it is an error"),
            LoadError::NotTernary { .. } => Some("pass --dense keep to compile such linears as they are stored"),
            LoadError::TiedHead { .. } => {
                Some("set tie_word_embeddings to false if the head is meant to be a table of its own")
            }
            LoadError::Io { .. }
            | LoadError::DuplicateTensor { .. }
            | LoadError::Json { .. }
            | LoadError::Config { .. }
            | LoadError::Unknown { .. }
            | LoadError::Value { .. } => None,
        }
    }
}
