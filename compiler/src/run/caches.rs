//! Sizes of this machine's caches, as Linux tells them.

use std::fs;
use std::path::Path;

/// Where the caches of the first core are described.
const FOLDER: &str = "/sys/devices/system/cpu/cpu0/cache";

/// Bytes of the cache of `level` (1 is nearest) that hold data, divided among the hardware threads that share it; `None`
/// where the system does not tell.
pub fn share_bytes(level: u32) -> Option<usize> {
    let caches = fs::read_dir(FOLDER).ok()?;
    caches.filter_map(|entry| share(&entry.ok()?.path(), level)).next()
}

/// The share of the cache described in `folder` if it is one of data at `level`.
fn share(folder: &Path, level: u32) -> Option<usize> {
    let read = |name: &str| Some(fs::read_to_string(folder.join(name)).ok()?.trim().to_owned());
    let holds_data = matches!(read("type")?.as_str(), "Data" | "Unified");
    let is_it = holds_data && read("level")?.parse() == Ok(level);
    let sharers = read("shared_cpu_map").map_or(1, |map| sharers(&map));
    is_it.then_some(())?;
    Some(bytes(&read("size")?)? / sharers)
}

/// `48K`, `2M` or a plain number of bytes.
fn bytes(text: &str) -> Option<usize> {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

/// Bits in a mask of hexadecimal words joined by commas, at least 1.
fn sharers(map: &str) -> usize {
    let bits = map.chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum::<u32>();
    bits.max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_masks_are_read() {
        assert_eq!([bytes("48K"), bytes("2M"), bytes("512")], [Some(48 << 10), Some(2 << 20), Some(512)]);
        assert_eq!([bytes("0K"), bytes("K"), bytes("big")], [None; 3]);
        assert_eq!([sharers("3"), sharers("ffffffff,0000000f"), sharers("0")], [2, 36, 1]);
    }
}
