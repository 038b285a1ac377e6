//! A byte buffer with labels and fix-ups, for the ISAs whose encoders are ours.

/// A position in the code, bound once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// Patches the instruction word at a fix-up, given the displacement in bytes from it to the label.
pub type Patch = fn(word: u32, displacement: i64) -> u32;

/// Code under construction for a machine of 32-bit instruction words.
#[derive(Default)]
pub struct Asm {
    code: Vec<u8>,
    labels: Vec<Option<usize>>,
    fixups: Vec<(usize, Label, Patch)>,
}

impl Asm {
    pub fn new() -> Self {
        Self::default()
    }

    /// Offset of the next instruction.
    pub fn here(&self) -> usize {
        self.code.len()
    }

    /// Appends one instruction word.
    pub fn word(&mut self, word: u32) {
        self.code.extend_from_slice(&word.to_le_bytes());
    }

    /// Appends one instruction whose displacement field is filled by `patch` when `label` is known.
    pub fn branch(&mut self, word: u32, label: Label, patch: Patch) {
        self.fixups.push((self.code.len(), label, patch));
        self.word(word);
    }

    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Binds `label` here.
    pub fn bind(&mut self, label: Label) {
        let slot = &mut self.labels[label.0];
        assert!(slot.is_none(), "a label is bound once");
        *slot = Some(self.code.len());
    }

    /// A new label bound here.
    pub fn bound(&mut self) -> Label {
        let label = self.label();
        self.bind(label);
        label
    }

    /// The finished bytes, all displacements filled in.
    pub fn finish(mut self) -> Vec<u8> {
        for (at, label, patch) in self.fixups {
            let to = self.labels[label.0].expect("every label used is bound");
            // Code is far below 2^63 bytes.
            let displacement = to as i64 - at as i64;
            let field: &mut [u8; 4] = (&mut self.code[at..at + 4]).try_into().expect("a whole word");
            *field = patch(u32::from_le_bytes(*field), displacement).to_le_bytes();
        }
        self.code
    }
}
