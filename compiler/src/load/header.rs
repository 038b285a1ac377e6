//! The header of a safetensors file, checked before anything in it is used.
//!
//! A file is `u64 n`, `n` bytes of JSON, then the data. The JSON maps each tensor's name to its type, shape and byte
//! range in the data. **Invariant:** after [`parse`] every range lies inside the file, fits its type and shape, and
//! the ranges tile the data without overlap or hole.
//!
//! Source: the format section of the safetensors README.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use tcc_runtime::map::MappedFile;

use super::error::LoadError;

/// Largest accepted header, the limit of the reference reader.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Bytes of the length field before the JSON.
const LENGTH_BYTES: usize = 8;

/// One tensor of a file: its bytes are `range` of the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub range: Range<usize>,
}

/// Reads and checks the header of `map`, the file at `path`.
pub(crate) fn parse(path: &Path, map: &MappedFile) -> Result<Vec<Entry>, LoadError> {
    let io = |source| LoadError::Io { file: path.to_owned(), source };
    let broken = |found: String, expected: String| LoadError::Header { file: path.to_owned(), found, expected };
    if map.len() < LENGTH_BYTES {
        return Err(broken(format!("{} bytes", map.len()), "at least the 8 bytes of the header's length".into()));
    }
    let length = map.bytes(0..LENGTH_BYTES).map_err(io)?;
    let length = u64::from_le_bytes(length.try_into().expect("the range has 8 bytes"));
    let room = (map.len() - LENGTH_BYTES) as u64;
    if length > room.min(MAX_HEADER_BYTES) {
        let limit = if room < MAX_HEADER_BYTES { "the rest of the file" } else { "the limit for headers" };
        return Err(broken(
            format!("a header of {length} bytes"),
            format!("at most {}, {limit}", room.min(MAX_HEADER_BYTES)),
        ));
    }
    let data_start = LENGTH_BYTES + usize::try_from(length).expect("not longer than the file, whose length is a usize");
    let text = map.bytes(LENGTH_BYTES..data_start).map_err(io)?;
    let header: Header = serde_json::from_slice(text).map_err(|e| {
        broken(format!("header JSON with {e}"), "an object of tensors with dtype, shape, offsets".into())
    })?;
    let mut entries = Vec::with_capacity(header.0.len());
    for (name, raw) in header.0 {
        entries.push(entry(path, name, raw, data_start, map.len())?);
    }
    duplicates(path, &entries)?;
    tiling(path, &entries, data_start, map.len())?;
    Ok(entries)
}

/// Checks one entry on its own: known type, range in order and inside the file, as long as type and shape say.
fn entry(path: &Path, name: String, raw: RawEntry, data_start: usize, file_bytes: usize) -> Result<Entry, LoadError> {
    let wrong = |found: String, expected: String| LoadError::TensorRange {
        file: path.to_owned(),
        tensor: name.clone(),
        found,
        expected,
    };
    let dtype: Dtype = serde_json::from_value(raw.dtype.clone().into())
        .map_err(|_| wrong(format!("type '{}'", raw.dtype), "a safetensors type such as BF16, F16, F32, U8".into()))?;
    let (begin, end) = raw.data_offsets;
    let data_bytes = (file_bytes - data_start) as u64;
    if begin > end || end > data_bytes {
        return Err(wrong(
            format!("bytes {begin}..{end}"),
            format!("an ascending range inside the {data_bytes} bytes of data"),
        ));
    }
    let bits = raw.shape.iter().try_fold(dtype.bitsize() as u64, |n, extent| n.checked_mul(*extent));
    if bits != (end - begin).checked_mul(8) {
        let shape = &raw.shape;
        let needed = bits.map_or("more bytes than a file can have".into(), |b| format!("{} bytes", b.div_ceil(8)));
        return Err(wrong(format!("{} bytes", end - begin), format!("{needed} for {} {shape:?}", raw.dtype)));
    }
    let at = |offset: u64| data_start + usize::try_from(offset).expect("offsets lie inside the file");
    let extent = |e: &u64| usize::try_from(*e).map_err(|_| wrong(format!("extent {e}"), "an addressable size".into()));
    let shape = raw.shape.iter().map(extent).collect::<Result<_, _>>()?;
    Ok(Entry { dtype, shape, range: at(begin)..at(end), name })
}

fn duplicates(path: &Path, entries: &[Entry]) -> Result<(), LoadError> {
    let mut names: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(LoadError::DuplicateTensor {
            tensor: pair[0].to_owned(),
            file: path.to_owned(),
            other: path.to_owned(),
        }),
        None => Ok(()),
    }
}

/// The ranges, sorted, must follow each other from the start of the data to the end of the file.
fn tiling(path: &Path, entries: &[Entry], data_start: usize, file_bytes: usize) -> Result<(), LoadError> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by_key(|e| (e.range.start, e.range.end));
    let mut next = data_start;
    for e in sorted {
        if e.range.start != next {
            let kind = if e.range.start < next { "overlapping the tensor before it" } else { "after a hole" };
            return Err(LoadError::TensorRange {
                file: path.to_owned(),
                tensor: e.name.clone(),
                found: format!("data that begins at byte {}, {kind}", e.range.start - data_start),
                expected: format!("byte {}, where the tensor before it ends", next - data_start),
            });
        }
        next = e.range.end;
    }
    if next == file_bytes {
        return Ok(());
    }
    Err(LoadError::Header {
        file: path.to_owned(),
        found: format!("{file_bytes} bytes"),
        expected: format!("{next}, where the last tensor ends"),
    })
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header's entries in file order, duplicates kept for [`duplicates`] to find.
struct Header(Vec<(String, RawEntry)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
