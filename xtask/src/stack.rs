//! How much stack the functions of a BPF object take together, as the strictest kernel reckons it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Context as _, Result, ensure};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind, SymbolKind,
};

/// Bytes that all functions which are active at once may take, `MAX_BPF_STACK` of every kernel.
pub const MOST: u32 = 512;

/// A function's share is rounded up to so much by Linux 6.1, and by every kernel without a JIT (`round_up(max(depth, 1), 32)` in
/// `check_max_stack_depth`); with one, later kernels round up to 16.
const ROUNDED_TO: u32 = 32;

/// Functions that are active at once, the first the program.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Chain {
    pub bytes: u32,
    /// Names, and what each takes of its own.
    functions: Vec<(String, u32)>,
}

impl fmt::Display for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, own)) in self.functions.iter().enumerate() {
            let arrow = if number == 0 { "" } else { " -> " };
            write!(formatter, "{arrow}{name} ({own})")?;
        }
        Ok(())
    }
}

/// Where a function is: its section's number, and the offset in it.
type Place = (usize, u64);

#[derive(Debug)]
struct Function {
    name: String,
    own: u32,
    calls: BTreeSet<Place>,
}

/// The chain of calls that takes most.
///
/// # Errors
///
/// What is no object, or has no functions.
pub fn deepest(bytes: &[u8]) -> Result<Chain> {
    let functions = functions(bytes)?;
    let mut known = BTreeMap::new();
    let chains = functions
        .keys()
        .map(|place| below(*place, &functions, &mut known));
    Ok(chains.max_by_key(|chain| chain.bytes).unwrap_or_default())
}

/// A function with the deepest chain that begins at it; BPF knows no recursion.
fn below(
    place: Place,
    functions: &BTreeMap<Place, Function>,
    known: &mut BTreeMap<Place, Chain>,
) -> Chain {
    if let Some(chain) = known.get(&place) {
        return chain.clone();
    }
    let Some(function) = functions.get(&place) else {
        return Chain::default();
    };
    let calls = function.calls.iter();
    let deepest = calls
        .map(|call| below(*call, functions, known))
        .max_by_key(|chain| chain.bytes)
        .unwrap_or_default();
    let mut chain = Chain {
        bytes: function.own.max(1).next_multiple_of(ROUNDED_TO) + deepest.bytes,
        functions: vec![(function.name.clone(), function.own)],
    };
    chain.functions.extend(deepest.functions);
    known.insert(place, chain.clone());
    chain
}

fn functions(bytes: &[u8]) -> Result<BTreeMap<Place, Function>> {
    let file = object::File::parse(bytes).context("no object file")?;
    let mut functions = BTreeMap::new();
    for section in file
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
    {
        let index = section.index();
        let (code, relocations) = (section.data()?, relocations(&file, &section)?);
        let here = file.symbols().filter(|symbol| {
            symbol.kind() == SymbolKind::Text && symbol.section_index() == Some(index)
        });
        for symbol in here.filter(|symbol| symbol.size() > 0) {
            let place = (index.0, symbol.address());
            let start = usize::try_from(symbol.address())?;
            let end = start + usize::try_from(symbol.size())?;
            let code = code
                .get(start..end)
                .context("a symbol beyond its section")?;
            let (own, calls) = read(code, place, &relocations);
            let name = format!("{:#}", rustc_demangle::demangle(symbol.name()?));
            functions.insert(place, Function { name, own, calls });
        }
    }
    ensure!(!functions.is_empty(), "no function has a size");
    Ok(functions)
}

fn relocations(file: &object::File<'_>, section: &object::Section<'_, '_>) -> Result<Relocations> {
    let mut relocations = Relocations::new();
    for (offset, relocation) in section.relocations() {
        let RelocationTarget::Symbol(target) = relocation.target() else {
            continue;
        };
        let target = file.symbol_by_index(target)?;
        if let Some(section) = target.section_index() {
            let is_section = target.kind() == SymbolKind::Section;
            relocations.insert(offset, (section.0, target.address(), is_section));
        }
    }
    Ok(relocations)
}

/// Symbols that instructions name, by offset: their section, their address, and whether the instruction's own number is
/// to be added.
type Relocations = BTreeMap<u64, (usize, u64, bool)>;

/// What a function takes of its own, and whom it calls or hands to a helper that calls.
fn read(code: &[u8], place: Place, relocations: &Relocations) -> (u32, BTreeSet<Place>) {
    let mut lowest = 0;
    let mut calls = BTreeSet::new();
    let mut frame = Frame::default();
    let (instructions, _) = code.as_chunks::<8>();
    let mut at = place.1;
    let mut is_second_half = false;
    for bytes in instructions {
        let instruction = Instruction::of(*bytes);
        if !std::mem::take(&mut is_second_half) {
            lowest = lowest.min(frame.follow(instruction));
            let target = relocations.get(&at).copied();
            match instruction.operation {
                CALL if instruction.source == TO_FUNCTION => {
                    let number = (i64::from(instruction.number) + 1) * 8;
                    calls.insert(match target {
                        Some((section, _, true)) => (section, number.unsigned_abs()),
                        Some((section, address, false)) => (section, address),
                        None => (place.0, at.wrapping_add_signed(number)),
                    });
                }
                LOAD_WIDE => {
                    is_second_half = true;
                    if let Some((section, address, is_section)) = target {
                        let number = u64::from(instruction.number.unsigned_abs());
                        calls.insert((section, if is_section { number } else { address }));
                    }
                }
                _ => {}
            }
        }
        at += 8;
    }
    (lowest.unsigned_abs(), calls)
}

#[derive(Clone, Copy, Debug)]
struct Instruction {
    operation: u8,
    destination: u8,
    source: u8,
    offset: i16,
    number: i32,
}

impl Instruction {
    fn of(bytes: [u8; 8]) -> Self {
        let [operation, registers, low, high, a, b, c, d] = bytes;
        Self {
            operation,
            destination: registers & 15,
            source: registers >> 4,
            offset: i16::from_le_bytes([low, high]),
            number: i32::from_le_bytes([a, b, c, d]),
        }
    }
}

/// Which registers point into the frame, and where; line after line, as compilers write it.
#[derive(Debug, Default)]
struct Frame([Option<i32>; 16]);

impl Frame {
    /// The lowest place that the instruction names.
    fn follow(&mut self, instruction: Instruction) -> i32 {
        let Instruction {
            operation,
            destination,
            source,
            offset,
            number,
        } = instruction;
        let named = match operation & CLASS {
            LOAD => self.place(source).map(|place| place + i32::from(offset)),
            STORE | STORE_NUMBER => self
                .place(destination)
                .map(|place| place + i32::from(offset)),
            _ => None,
        };
        let moved = match operation {
            MOVE => self.place(source),
            ADD => self.place(destination).map(|place| place + number),
            _ => None,
        };
        let is_written = !matches!(operation & CLASS, STORE | STORE_NUMBER | JUMP | JUMP_32);
        if is_written {
            self.0[usize::from(destination)] = moved;
        }
        named.or(moved).unwrap_or(0).min(0)
    }

    fn place(&self, register: u8) -> Option<i32> {
        match register {
            FRAME => Some(0),
            register => self.0[usize::from(register)],
        }
    }
}

const FRAME: u8 = 10;
const CLASS: u8 = 7;
const LOAD: u8 = 1;
const STORE_NUMBER: u8 = 2;
const STORE: u8 = 3;
const JUMP: u8 = 5;
const JUMP_32: u8 = 6;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
const LOAD_WIDE: u8 = 0x18;
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_CALL`, in the place of a source.
const TO_FUNCTION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: usize = 1;

    fn function(name: &str, own: u32, calls: &[u64]) -> Function {
        Function {
            name: name.to_owned(),
            own,
            calls: calls.iter().map(|place| (TEXT, *place)).collect(),
        }
    }

    #[test]
    fn every_function_of_a_chain_counts_and_is_rounded_up() {
        let functions = BTreeMap::from([
            ((TEXT, 0), function("ingress", 264, &[8, 16])),
            ((TEXT, 8), function("parse", 184, &[])),
            ((TEXT, 16), function("from_backend", 208, &[24])),
            ((TEXT, 24), function("memset", 0, &[])),
        ]);
        let chain = below((TEXT, 0), &functions, &mut BTreeMap::new());
        assert_eq!(chain.bytes, 288 + 224 + 32);
        assert_eq!(
            chain.to_string(),
            "ingress (264) -> from_backend (208) -> memset (0)"
        );
    }

    #[test]
    fn a_frame_is_as_deep_as_what_is_written_and_pointed_to() {
        let code = [
            // *(u64 *)(r10 - 16) = r1
            [0x7b, 0x1a, 0xf0, 0xff, 0, 0, 0, 0],
            // r2 = r10; r2 += -40; *(u32 *)(r2 - 8) = r1
            [0xbf, 0xa2, 0, 0, 0, 0, 0, 0],
            [0x07, 0x02, 0, 0, 0xd8, 0xff, 0xff, 0xff],
            [0x63, 0x12, 0xf8, 0xff, 0, 0, 0, 0],
            // r2 = r1; *(u32 *)(r2 - 128) = r1
            [0xbf, 0x12, 0, 0, 0, 0, 0, 0],
            [0x63, 0x12, 0x80, 0xff, 0, 0, 0, 0],
            // call the function two instructions on; exit
            [0x85, 0x10, 0, 0, 1, 0, 0, 0],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        let (own, calls) = read(code.as_flattened(), (TEXT, 800), &BTreeMap::new());
        assert_eq!(own, 48);
        assert_eq!(calls, BTreeSet::from([(TEXT, 800 + 8 * 8)]));
    }
}
