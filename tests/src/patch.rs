//! Copies of fixtures that a test may change before it loads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::oracle::fixture;

/// A tensor of a safetensors file.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    pub dtype: String,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Raw {
    pub fn new(dtype: &str, shape: &[usize], bytes: Vec<u8>) -> Self {
        Raw { dtype: dtype.into(), shape: shape.to_vec(), bytes }
    }

    /// An F32 tensor.
    pub fn f32(shape: &[usize], values: &[f32]) -> Self {
        Raw::new("F32", shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// The elements of a BF16, F16 or F32 tensor.
    pub fn floats(&self) -> Vec<f32> {
        let halves = || self.bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
        match self.dtype.as_str() {
            "F32" => self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            "F16" => halves().map(tcc_ir::numerics::f16_to_f32).collect(),
            "BF16" => halves().map(tcc_ir::numerics::bf16_to_f32).collect(),
            other => panic!("{other} is no float type"),
        }
    }
}

/// The tensors of a file by name.
pub type Tensors = BTreeMap<String, Raw>;

/// A private copy of a fixture's model files.
pub struct Copy {
    folder: TempDir,
}

impl Copy {
    pub fn of(name: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for file in fs::read_dir(fixture(name)).expect("the fixture is there") {
            let file = file.expect("readable");
            fs::copy(file.path(), folder.path().join(file.file_name())).expect("a copy");
        }
        Copy { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The bytes of `name`.
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).expect("the file is there")
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.file(name), bytes).expect("the folder is writable");
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).expect("the file is there");
    }

    /// Changes the JSON object in `name`; equal keys are merged.
    pub fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
        let mut object: Map<String, Value> = serde_json::from_slice(&self.read(name)).expect("an object");
        edit(&mut object);
        self.write(name, serde_json::to_vec_pretty(&object).expect("serializable"));
    }

    /// Changes config.json.
    pub fn edit_config(&self, edit: impl FnOnce(&mut Map<String, Value>)) {
        self.edit_json("config.json", edit);
    }

    /// Sets one key of config.json.
    pub fn set(&self, key: &str, value: impl Into<Value>) {
        self.edit_config(|config| {
            config.insert(key.into(), value.into());
        });
    }

    /// Changes the tensors of the file `name`.
    pub fn edit_file(&self, name: &str, edit: impl FnOnce(&mut Tensors)) {
        let mut tensors = parse(&self.read(name));
        edit(&mut tensors);
        self.write(name, serialize(&tensors));
    }

    /// Changes the tensors of model.safetensors.
    pub fn edit_tensors(&self, edit: impl FnOnce(&mut Tensors)) {
        self.edit_file("model.safetensors", edit);
    }

    /// Replaces the header of model.safetensors, the data kept.
    pub fn edit_header(&self, edit: impl FnOnce(String) -> String) {
        let bytes = self.read("model.safetensors");
        let (header, data) = split(&bytes);
        let header = edit(String::from_utf8(header.to_vec()).expect("UTF-8"));
        self.write("model.safetensors", join(header.as_bytes(), data));
    }
}

/// Header and data of a safetensors file.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    bytes[8..].split_at(usize::try_from(length).expect("the header fits"))
}

fn join(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

fn parse(bytes: &[u8]) -> Tensors {
    let (header, data) = split(bytes);
    let header: Map<String, Value> = serde_json::from_slice(header).expect("an object");
    let number = |v: &Value| usize::try_from(v.as_u64().expect("a count")).expect("fits");
    let tensor = |(name, v): (&String, &Value)| {
        let shape = v["shape"].as_array().expect("a list").iter().map(number).collect();
        let [begin, end] = [0, 1].map(|i| number(&v["data_offsets"][i]));
        let dtype = v["dtype"].as_str().expect("a name").to_owned();
        (name.clone(), Raw { dtype, shape, bytes: data[begin..end].to_vec() })
    };
    header.iter().filter(|(name, _)| *name != "__metadata__").map(tensor).collect()
}

fn serialize(tensors: &Tensors) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, tensor) in tensors {
        let begin = data.len();
        data.extend(&tensor.bytes);
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    join(&serde_json::to_vec(&header).expect("serializable"), &data)
}
