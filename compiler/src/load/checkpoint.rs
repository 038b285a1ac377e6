//! The files of a checkpoint: found, mapped, and their tensors under one roof.
//!
//! Accepted are a folder, a shard index, or one `.safetensors` file, each with `config.json` beside it. Shards are
//! plain names inside the index's folder; a tensor is in the shard that the index says.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use safetensors::Dtype;
use serde_json::Value;
use tcc_runtime::map::MappedFile;

use super::error::LoadError;
use super::floats::Floats;
use super::header::{self, Entry};
use super::json;

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Largest accepted JSON file beside the weights: shard indices of the largest models have a few megabytes.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// Mapped files and where each tensor lies in them.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    /// The folder with `config.json`.
    pub folder: PathBuf,
    files: Vec<(PathBuf, MappedFile)>,
    tensors: BTreeMap<String, (usize, Entry)>,
}

/// A tensor as the file holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub name: &'a str,
    pub file: &'a Path,
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
}

impl Checkpoint {
    /// Opens the checkpoint that `path` names and checks the headers of its files.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let not_a_model = |found: &str| LoadError::NotAModel { path: path.to_owned(), found: found.into() };
        if path.is_dir() {
            let (single, index) = (path.join(SINGLE_FILE), path.join(INDEX_FILE));
            return match (single.is_file(), index.is_file()) {
                (true, _) => Self::single(&single),
                (false, true) => Self::sharded(&index),
                (false, false) => Err(not_a_model("the folder has no model.safetensors and no shard index")),
            };
        }
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if !path.exists() {
            Err(not_a_model("there is no such file or folder"))
        } else if name.ends_with(".safetensors.index.json") {
            Self::sharded(path)
        } else if name.ends_with(".safetensors") {
            Self::single(path)
        } else {
            Err(not_a_model("a file that is neither .safetensors nor .safetensors.index.json"))
        }
    }

    fn single(path: &Path) -> Result<Self, LoadError> {
        let mut checkpoint = Self::empty(path);
        checkpoint.add(path.to_owned())?;
        Ok(checkpoint)
    }

    fn sharded(index: &Path) -> Result<Self, LoadError> {
        let weight_map = read_index(index)?;
        let mut checkpoint = Self::empty(index);
        let mut shards: Vec<&String> = weight_map.values().collect();
        shards.sort();
        shards.dedup();
        for shard in shards {
            checkpoint.add(shard_path(index, shard)?)?;
        }
        for (tensor, (file, _)) in &checkpoint.tensors {
            let file = &checkpoint.files[*file].0;
            let listed = weight_map.get(tensor);
            if listed.is_none_or(|shard| !file.ends_with(shard)) {
                return Err(LoadError::WrongShard {
                    tensor: tensor.clone(),
                    file: file.clone(),
                    expected: listed.map_or("no shard".into(), |shard| format!("'{shard}'")),
                });
            }
        }
        let absent = weight_map.iter().find(|(tensor, _)| !checkpoint.tensors.contains_key(*tensor));
        match absent {
            Some((tensor, shard)) => Err(LoadError::Missing {
                file: shard_path(index, shard)?,
                tensor: tensor.clone(),
                expected: "it there because the index says so".into(),
            }),
            None => Ok(checkpoint),
        }
    }

    fn empty(file: &Path) -> Self {
        let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Checkpoint { folder: folder.to_owned(), files: Vec::new(), tensors: BTreeMap::new() }
    }

    fn add(&mut self, path: PathBuf) -> Result<(), LoadError> {
        let map = MappedFile::open(&path).map_err(|source| LoadError::Io { file: path.clone(), source })?;
        for entry in header::parse(&path, &map)? {
            let name = entry.name.clone();
            if let Some((other, _)) = self.tensors.insert(name.clone(), (self.files.len(), entry)) {
                let other = self.files[other].0.clone();
                return Err(LoadError::DuplicateTensor { tensor: name, file: path, other });
            }
        }
        self.files.push((path, map));
        Ok(())
    }

    /// The files that hold tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The file that holds `name`, or the one where it would be looked for.
    pub fn file_of(&self, name: &str) -> PathBuf {
        let held = self.tensors.get(name).map(|(file, _)| *file);
        self.files.get(held.unwrap_or(0)).map_or_else(|| self.folder.clone(), |(path, _)| path.clone())
    }

    /// Tensor `name`, if it is stored; its file is asked for its length first.
    pub fn find(&self, name: &str) -> Result<Option<Stored<'_>>, LoadError> {
        let Some((name, (file, entry))) = self.tensors.get_key_value(name) else { return Ok(None) };
        let (path, map) = &self.files[*file];
        let bytes = map.bytes(entry.range.clone()).map_err(|source| LoadError::Io { file: path.clone(), source })?;
        Ok(Some(Stored { name, file: path, dtype: entry.dtype, shape: &entry.shape, bytes }))
    }

    /// Tensor `name`, which must be stored; `expected` says as what.
    pub fn get(&self, name: &str, expected: &str) -> Result<Stored<'_>, LoadError> {
        self.find(name)?.ok_or_else(|| LoadError::Missing {
            file: self.file_of(name),
            tensor: name.to_owned(),
            expected: expected.to_owned(),
        })
    }

    /// Tensor `name` of any float type and of shape `shape`.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Floats<'_>, LoadError> {
        let stored = self.get(name, &format!("floats {shape:?}"))?;
        let floats = Floats::new(stored.dtype, stored.bytes).filter(|_| stored.shape == shape);
        floats.ok_or_else(|| stored.mistyped(format!("BF16, F16 or F32 {shape:?}")))
    }
}

impl Stored<'_> {
    /// `BF16 [4, 8]`.
    pub fn ty(&self) -> String {
        format!("{} {:?}", self.dtype, self.shape)
    }

    pub fn mistyped(&self, expected: String) -> LoadError {
        LoadError::Tensor { file: self.file.to_owned(), tensor: self.name.to_owned(), found: self.ty(), expected }
    }

    pub fn bad_value(&self, element: usize, found: f32, expected: &str) -> LoadError {
        LoadError::Value {
            file: self.file.to_owned(),
            tensor: self.name.to_owned(),
            element,
            found: found.to_string(),
            expected: expected.to_owned(),
        }
    }
}

/// The `weight_map` of the index at `path`: tensor name to shard name.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    let document = read_json(path)?;
    let config = |found: &str, expected: &str| LoadError::Config {
        file: path.to_owned(),
        key: "weight_map".into(),
        found: found.into(),
        expected: expected.into(),
    };
    let expected = "an object of tensor names and shard names";
    let Some(Value::Object(map)) = document.value.get("weight_map") else {
        return Err(config("missing or no object", expected));
    };
    if let Some(key) = document.duplicates.iter().find(|path| path.starts_with("weight_map")) {
        return Err(config(&format!("ambiguous: '{key}' occurs twice"), "each tensor once"));
    }
    let entry = |(tensor, shard): (&String, &Value)| match shard {
        Value::String(shard) => Ok((tensor.clone(), shard.clone())),
        other => Err(config(&format!("{other} for tensor '{tensor}'"), expected)),
    };
    map.iter().map(entry).collect()
}

/// The path of `shard`, which must be a plain file name: an index cannot reach outside its folder.
fn shard_path(index: &Path, shard: &str) -> Result<PathBuf, LoadError> {
    let wrong = |found: &str, expected: &str| LoadError::Shard {
        index: index.to_owned(),
        shard: shard.to_owned(),
        found: found.into(),
        expected: expected.into(),
    };
    let mut components = Path::new(shard).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    if !plain || shard.contains(['/', '\\', ':', '\0']) {
        return Err(wrong("is not a plain file name", "a name without separators, inside the folder of the index"));
    }
    let path = index.with_file_name(shard);
    if path.is_file() { Ok(path) } else { Err(wrong("does not exist", "a file beside the index")) }
}

/// Reads and parses the JSON file at `path`.
pub(crate) fn read_json(path: &Path) -> Result<json::Document, LoadError> {
    let io = |source| LoadError::Io { file: path.to_owned(), source };
    let broken = |found: String| LoadError::Json { file: path.to_owned(), found };
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    if bytes > MAX_JSON_BYTES {
        return Err(broken(format!("{bytes} bytes are more than the limit of {MAX_JSON_BYTES}")));
    }
    let text = std::fs::read(path).map_err(io)?;
    json::parse(&text).map_err(|e| broken(e.to_string()))
}
