//! A listing of the code: every symbol, op label and instruction with its place and bytes.

use std::collections::BTreeMap;

use tcc_backends::image::SymbolKind;

use crate::driver::Back;

/// The text of `NAME.s`.
pub fn text(back: &Back) -> String {
    let image = &back.image;
    let mut labels: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for symbol in image.symbols.iter().filter(|s| s.kind == SymbolKind::Label) {
        labels.entry(symbol.offset).or_default().push(&symbol.name);
    }
    let mut out = format!("; {} for {}, {} bytes of text\n", back.name, back.target.triple, image.text.len());
    for symbol in &image.symbols {
        let range = symbol.offset as usize..(symbol.offset + symbol.bytes) as usize;
        match symbol.kind {
            SymbolKind::Label => {}
            SymbolKind::Data => out += &format!("\n{}:  ; {} bytes of data\n", symbol.name, symbol.bytes),
            SymbolKind::Api | SymbolKind::Function => {
                out += &format!("\n{}:\n", symbol.name);
                function(back, &image.text[range], symbol.offset, &labels, &mut out);
            }
        }
    }
    out
}

fn function(back: &Back, code: &[u8], offset: u64, labels: &BTreeMap<u64, Vec<&str>>, out: &mut String) {
    let mut at = 0;
    for (length, instruction) in back.target.backend.disassemble(code, offset) {
        let place = offset + at as u64;
        for label in labels.get(&place).into_iter().flatten() {
            *out += &format!("{label}:\n");
        }
        let bytes: String = code[at..at + length].iter().map(|b| format!("{b:02x}")).collect();
        *out += &format!("  {place:6x}  {bytes:<20}  {instruction}\n");
        at += length;
    }
}
