//! Compiled models kept between runs, by content: in the platform's cache folder, within a size limit.
//!
//! An entry is a folder named by the hash of everything that decides its bytes. Entries are made under a temporary
//! name and renamed, so that a reader never sees half of one; the least recently used go first.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::golden::hex;

/// Size above which old entries are removed, bytes.
pub const DEFAULT_LIMIT_BYTES: u64 = 8 << 30;

/// Remembered hashes of files, by path, size and time of change.
const INDEX: &str = "files.json";

/// What the names of entries under construction begin with.
const SCRATCH: &str = ".tcc-";

/// Age at which an entry under construction was left by a process that ended.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder of compiled models.
pub struct Cache {
    folder: PathBuf,
    limit_bytes: u64,
}

/// One compiled model of the cache.
#[derive(Clone, Debug)]
pub struct Entry {
    pub path: PathBuf,
    pub bytes: u64,
    pub used: SystemTime,
}

impl Cache {
    /// The cache at `folder`, or in the platform's place.
    pub fn open(folder: Option<PathBuf>, limit_bytes: u64) -> Result<Cache, Error> {
        let folder = match folder {
            Some(folder) => folder,
            None => directories::ProjectDirs::from("", "", "tcc")
                .map(|dirs| dirs.cache_dir().to_owned())
                .ok_or_else(|| Error::usage("this system names no cache folder", "set TCC_CACHE_DIR"))?,
        };
        fs::create_dir_all(&folder).map_err(Error::io("created", &folder))?;
        Ok(Cache { folder, limit_bytes })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The key of a build: its input files' contents and every choice in `choices`.
    pub fn key<'p>(&self, files: impl Iterator<Item = &'p Path>, choices: &str) -> Result<String, Error> {
        let mut index = self.read_index();
        let mut hash = Sha256::new();
        hash.update(choices.as_bytes());
        for file in files {
            let digest = content_hash(file, &mut index).map_err(Error::io("read", file))?;
            hash.update(digest.as_bytes());
        }
        self.write_index(&index)?;
        Ok(hex(&hash.finalize().into()))
    }

    /// The entry `key`, made by `fill` (given an empty folder) if it is not there yet.
    pub fn entry(&self, key: &str, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<PathBuf, Error> {
        let path = self.folder.join(key);
        if !path.is_dir() {
            let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(&self.folder)?;
            fill(scratch.path())?;
            let made = scratch.keep();
            // Another process may have made the same entry meanwhile; either is as good.
            if fs::rename(&made, &path).is_err() {
                fs::remove_dir_all(&made).map_err(Error::io("removed", &made))?;
            }
        }
        // The time of the last use decides what is removed first; failing to note it harms nobody.
        let _ = fs::File::open(&path).and_then(|f| f.set_modified(SystemTime::now()));
        self.trim(&path)?;
        Ok(path)
    }

    /// Every entry, least recently used first; what a process is still making is none.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for item in fs::read_dir(&self.folder).map_err(Error::io("read", &self.folder))? {
            let path = item.map_err(Error::io("read", &self.folder))?.path();
            let Ok(meta) = path.metadata() else { continue };
            if meta.is_dir() {
                let used = meta.modified().unwrap_or(UNIX_EPOCH);
                if is_under_construction(&path, used) {
                    continue;
                }
                entries.push(Entry { bytes: folder_bytes(&path), path, used });
            }
        }
        entries.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        Ok(entries)
    }

    /// Removes everything and returns the bytes freed.
    pub fn clear(&self) -> Result<u64, Error> {
        let mut freed = 0;
        for entry in self.entries()? {
            fs::remove_dir_all(&entry.path).map_err(Error::io("removed", &entry.path))?;
            freed += entry.bytes;
        }
        let index = self.folder.join(INDEX);
        if index.is_file() {
            fs::remove_file(&index).map_err(Error::io("removed", &index))?;
        }
        Ok(freed)
    }

    /// Removes the least recently used entries until the limit holds; `keep` stays.
    fn trim(&self, keep: &Path) -> Result<(), Error> {
        let entries = self.entries()?;
        let mut total: u64 = entries.iter().map(|e| e.bytes).sum();
        for entry in entries.iter().filter(|e| e.path != keep) {
            if total <= self.limit_bytes {
                break;
            }
            fs::remove_dir_all(&entry.path).map_err(Error::io("removed", &entry.path))?;
            total -= entry.bytes;
        }
        Ok(())
    }

    fn read_index(&self) -> Value {
        let text = fs::read_to_string(self.folder.join(INDEX)).unwrap_or_default();
        serde_json::from_str(&text).ok().filter(Value::is_object).unwrap_or_else(|| json!({}))
    }

    fn write_index(&self, index: &Value) -> Result<(), Error> {
        let path = self.folder.join(INDEX);
        let text = index.to_string();
        crate::output::write_whole(&path, crate::output::Mode::Data, |out| out.write_all(text.as_bytes()))
            .map_err(Error::io("written", path))
    }
}

fn is_under_construction(path: &Path, changed: SystemTime) -> bool {
    let scratch = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SCRATCH));
    scratch && changed.elapsed().is_ok_and(|age| age < ABANDONED)
}

fn folder_bytes(folder: &Path) -> u64 {
    let Ok(items) = fs::read_dir(folder) else { return 0 };
    items.flatten().filter_map(|item| item.metadata().ok()).map(|meta| meta.len()).sum()
}

/// SHA-256 of a file's content, from `index` if path, size and time of change are those of an earlier look.
fn content_hash(file: &Path, index: &mut Value) -> io::Result<String> {
    let meta = fs::metadata(file)?;
    let modified = meta.modified()?.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let identity = format!("{}|{}|{modified}", fs::canonicalize(file)?.display(), meta.len());
    if let Some(known) = index.get(&identity).and_then(Value::as_str) {
        return Ok(known.to_owned());
    }
    let mut hash = Sha256::new();
    let mut reader = fs::File::open(file)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let digest = hex(&hash.finalize().into());
    index[identity] = digest.clone().into();
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, name: &str, bytes: usize) -> Result<(), Error> {
        fs::write(folder.join(name), vec![0u8; bytes]).map_err(Error::io("written", folder))
    }

    #[test]
    fn keys_follow_content_and_choices() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(Some(folder.path().join("cache")), 1 << 20).expect("opens");
        let model = folder.path().join("model");
        let key = |choices: &str| cache.key([model.as_path()].into_iter(), choices).expect("a key");
        fs::write(&model, b"one").expect("writable");
        let one = key("a");
        assert_eq!(one, key("a"));
        assert_ne!(one, key("b"));
        fs::write(&model, b"three").expect("writable");
        assert_ne!(one, key("a"));
    }

    #[test]
    fn the_limit_removes_the_oldest() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(Some(folder.path().to_owned()), 2500).expect("opens");
        for name in ["a", "b", "c"] {
            cache.entry(name, |at| file(at, "x", 1000)).expect("fits");
        }
        let names: Vec<_> = cache.entries().expect("listed").into_iter().map(|e| e.path).collect();
        assert_eq!(names, ["b", "c"].map(|n| folder.path().join(n)));
        assert_eq!(cache.clear().expect("cleared"), 2000);
        assert!(cache.entries().expect("listed").is_empty());
    }

    #[test]
    fn what_another_process_makes_is_left_alone_until_it_is_abandoned() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(Some(folder.path().to_owned()), 1 << 20).expect("opens");
        let scratch = folder.path().join(".tcc-other");
        fs::create_dir(&scratch).expect("writable");
        assert_eq!(cache.clear().expect("cleared"), 0);
        assert!(scratch.is_dir());
        let long_ago = SystemTime::now() - 2 * ABANDONED;
        fs::File::open(&scratch).and_then(|f| f.set_modified(long_ago)).expect("our own folder");
        cache.clear().expect("cleared");
        assert!(!scratch.is_dir());
    }

    #[test]
    fn a_failed_entry_is_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(Some(folder.path().to_owned()), 1 << 20).expect("opens");
        assert!(cache.entry("k", |_| Err(Error::usage("no", "no"))).is_err());
        assert!(cache.entries().expect("listed").is_empty());
        assert!(cache.entry("k", |at| file(at, "x", 1)).is_ok());
    }
}
