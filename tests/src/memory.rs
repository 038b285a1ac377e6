//! The memory that code under test sees: allocations at absolute addresses, with guard bytes between them.

/// Bytes of guard behind every allocation, at least.
const GUARD_BYTES: usize = 64;

/// Value of guard bytes.
const GUARD: u8 = 0xA5;

/// An image of the memory from [`Memory::BASE`] on. Addresses in it are absolute, so blocks may hold pointers to
/// blocks.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    bytes: Vec<u8>,
    /// Ends of allocations and starts of the next: the guards between them.
    guards: Vec<(usize, usize)>,
}

impl Memory {
    /// Address of the first byte.
    pub const BASE: u64 = 0x1000_1000;

    /// Most bytes an image may have.
    pub const MAX_BYTES: usize = 512 << 20;

    pub fn new() -> Self {
        Self::default()
    }

    /// Address of `bytes` new bytes holding zeros, aligned to `align` (a power of two, at most 4096).
    pub fn alloc(&mut self, bytes: usize, align: usize) -> u64 {
        assert!(align.is_power_of_two() && align <= 4096, "alignment {align}");
        let end = self.bytes.len();
        let start = if end == 0 { 0 } else { (end + GUARD_BYTES).next_multiple_of(align) };
        self.bytes.resize(start, GUARD);
        self.guards.push((end, start));
        self.bytes.resize(start + bytes, 0);
        assert!(self.bytes.len() <= Self::MAX_BYTES, "image of {} bytes", self.bytes.len());
        Self::BASE + start as u64
    }

    /// Address of a new block holding `data`, aligned to `align`.
    pub fn place(&mut self, data: &[u8], align: usize) -> u64 {
        let address = self.alloc(data.len(), align);
        self.write(address, data);
        address
    }

    /// Address of a last block holding `data`, aligned to `align`, whose end is as near to the end of an image of `bytes`
    /// as that allows: what a process holds no memory behind is not read by mistake.
    pub fn place_last(&mut self, data: &[u8], align: usize, bytes: usize) -> u64 {
        let end = self.bytes.len();
        let start = (bytes - data.len()) / align * align;
        assert!(end + GUARD_BYTES <= start, "an image of {bytes} bytes is full at {end}");
        self.guards.extend([(end, start), (start + data.len(), bytes)]);
        self.bytes.resize(bytes, GUARD);
        self.bytes[start..start + data.len()].copy_from_slice(data);
        Self::BASE + start as u64
    }

    /// Address of a new block of 64-bit words, aligned to 64: an argument block.
    pub fn place_words(&mut self, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.place(&bytes, 64)
    }

    /// Address of a new block of int8 values, aligned to 64.
    pub fn place_i8(&mut self, values: &[i8]) -> u64 {
        let bytes: Vec<u8> = values.iter().map(|v| v.to_le_bytes()[0]).collect();
        self.place(&bytes, 64)
    }

    /// Address of a new block of f32 values, aligned to 64.
    pub fn place_f32(&mut self, values: &[f32]) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.place(&bytes, 64)
    }

    pub fn write(&mut self, address: u64, data: &[u8]) {
        let at = Self::offset(address);
        self.bytes[at..at + data.len()].copy_from_slice(data);
    }

    pub fn read(&self, address: u64, bytes: usize) -> &[u8] {
        &self.bytes[Self::offset(address)..][..bytes]
    }

    pub fn read_i32(&self, address: u64, count: usize) -> Vec<i32> {
        self.words(address, count).map(i32::from_le_bytes).collect()
    }

    pub fn read_f32(&self, address: u64, count: usize) -> Vec<f32> {
        self.words(address, count).map(f32::from_le_bytes).collect()
    }

    /// The whole image.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The whole image, to be replaced by what the code under test left.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Address of the first guard byte that was written, if any.
    pub fn clobbered(&self) -> Option<u64> {
        let mut guards = self.guards.iter().flat_map(|&(start, end)| start..end);
        guards.find(|&i| self.bytes[i] != GUARD).map(|i| Self::BASE + i as u64)
    }

    fn words(&self, address: u64, count: usize) -> impl Iterator<Item = [u8; 4]> + '_ {
        self.read(address, 4 * count).chunks_exact(4).map(|c| c.try_into().expect("chunks of four"))
    }

    fn offset(address: u64) -> usize {
        let offset = address.checked_sub(Self::BASE).expect("an address of the image");
        usize::try_from(offset).expect("images are far below 4 GiB")
    }
}
