//! Small programs as ELF images: functions that call each other, tables that point to them.

/// A function, named by a number that its body follows from.
pub type Function = u32;

const TEXT_PLACE: u64 = 0x1000;
/// What addresses are ahead of places in the file, as in most shared objects.
const ADDRESS_AHEAD: u64 = 0x2000;

fn random(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A reference in a body: where its four bytes are, and to which function or slot.
enum Fixup {
    Call(usize, u32),
    Slot(usize, u32),
}

/// A function's bytes, and what has to be filled in once it is known where everything is.
fn body(function: Function) -> (Vec<u8>, Vec<Fixup>) {
    let (mut bytes, mut fixups) = (Vec::new(), Vec::new());
    for step in 0..4 + random(u64::from(function)) % 12 {
        let seed = random(u64::from(function) << 8 | step);
        // Bytes that are no opcodes of references.
        bytes.extend((0..4 + seed % 13).map(|at| 0x50 | (random(seed ^ at) as u8 & 0x0f)));
        if seed & 0x100 == 0 {
            bytes.push(0xe8);
            fixups.push(Fixup::Call(bytes.len(), (seed >> 16) as u32));
        } else {
            bytes.extend_from_slice(&[0x48, 0x8d, 0x05]);
            fixups.push(Fixup::Slot(bytes.len(), (seed >> 16) as u32));
        }
        bytes.extend_from_slice(&[0; 4]);
    }
    bytes.push(0xc3);
    (bytes, fixups)
}

struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    bytes: Vec<u8>,
    link: u32,
    entry: u64,
}

/// The image of a program. Each function calls whoever of `functions` is nearest to what its body
/// asks for, so that one more function changes few calls but moves all that follow.
pub fn program(functions: &[Function]) -> Vec<u8> {
    let bodies: Vec<_> = functions.iter().map(|function| body(*function)).collect();
    let (mut starts, mut text) = (Vec::new(), Vec::new());
    for (bytes, _) in &bodies {
        text.resize(text.len().next_multiple_of(16), 0xcc);
        starts.push(text.len() as u64);
        text.extend_from_slice(bytes);
    }
    let text_address = TEXT_PLACE + ADDRESS_AHEAD;
    let slots_place = (TEXT_PLACE + text.len() as u64).next_multiple_of(64);
    let slots_address = slots_place + ADDRESS_AHEAD;
    let called = |wanted: u32| {
        let number = (0..functions.len()).min_by_key(|n| functions[*n].wrapping_sub(wanted));
        number.expect("a program has functions")
    };
    for (start, (_, fixups)) in starts.iter().zip(&bodies) {
        for fixup in fixups {
            let (at, target) = match fixup {
                Fixup::Call(at, wanted) => (*at, text_address + starts[called(*wanted)]),
                Fixup::Slot(at, wanted) => (*at, slots_address + 8 * called(*wanted) as u64),
            };
            let at = *start as usize + at;
            let value = target.wrapping_sub(text_address + at as u64 + 4) as u32;
            text[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    let address = |number: usize| text_address + starts[number];
    let (mut relocations, mut symbols, mut names) = (Vec::new(), vec![0; 24], vec![0]);
    let mut unwind: Vec<u8> = [&20u32.to_le_bytes()[..], &[0; 20]].concat();
    let places = Places::of(&text, functions.len());
    for (number, function) in functions.iter().enumerate() {
        for word in [slots_address + 8 * number as u64, 8, address(number)] {
            relocations.extend_from_slice(&word.to_le_bytes());
        }
        symbols.extend_from_slice(&(names.len() as u32).to_le_bytes());
        symbols.extend_from_slice(&[2, 0, 1, 0]);
        symbols.extend_from_slice(&address(number).to_le_bytes());
        symbols.extend_from_slice(&(bodies[number].0.len() as u64).to_le_bytes());
        names.extend_from_slice(format!("function_{function:x}\0").as_bytes());
        let here = places.unwind + ADDRESS_AHEAD + unwind.len() as u64;
        unwind.extend_from_slice(&20u32.to_le_bytes());
        unwind.extend_from_slice(&(unwind.len() as u32).to_le_bytes());
        unwind.extend_from_slice(&(address(number).wrapping_sub(here + 8) as u32).to_le_bytes());
        unwind.extend_from_slice(&(bodies[number].0.len() as u32).to_le_bytes());
        unwind.extend_from_slice(&[0; 8]);
    }
    let section =
        |name, kind, flags, bytes, link, entry| Section { name, kind, flags, bytes, link, entry };
    image(
        &[
            section(".text", 1, 6, text, 0, 0),
            section(".data.rel.ro", 1, 3, vec![0; 8 * functions.len()], 0, 0),
            section(".eh_frame", 1, 2, unwind, 0, 0),
            section(".rela.dyn", 4, 2, relocations, 0, 24),
            section(".symtab", 2, 0, symbols, 6, 24),
            section(".strtab", 3, 0, names, 0, 0),
        ],
        slots_place,
    )
}

/// Where sections come to lie that others refer to.
struct Places {
    unwind: u64,
}

impl Places {
    fn of(text: &[u8], functions: usize) -> Places {
        let slots = (TEXT_PLACE + text.len() as u64).next_multiple_of(64);
        Places { unwind: (slots + 8 * functions as u64).next_multiple_of(64) }
    }
}

/// Lays sections out behind each other and writes the tables.
fn image(sections: &[Section], slots_place: u64) -> Vec<u8> {
    let mut out = vec![0; TEXT_PLACE as usize];
    let (mut table, mut strings) = (vec![0; 64], vec![0]);
    let all = sections.iter().map(|section| section.name).chain([".shstrtab"]);
    let offsets: Vec<u32> = all
        .map(|name| {
            let at = strings.len() as u32;
            strings.extend_from_slice(name.as_bytes());
            strings.push(0);
            at
        })
        .collect();
    let mut put = |out: &mut Vec<u8>, name: u32, section: &Section| {
        out.resize(out.len().next_multiple_of(64), 0);
        let place = out.len() as u64;
        let address = if section.flags & 2 != 0 { place + ADDRESS_AHEAD } else { 0 };
        for word in [name, section.kind] {
            table.extend_from_slice(&word.to_le_bytes());
        }
        for long in [section.flags, address, place, section.bytes.len() as u64] {
            table.extend_from_slice(&long.to_le_bytes());
        }
        for word in [section.link, 0] {
            table.extend_from_slice(&word.to_le_bytes());
        }
        for long in [8, section.entry] {
            table.extend_from_slice(&long.to_le_bytes());
        }
        out.extend_from_slice(&section.bytes);
        place
    };
    for (section, name) in sections.iter().zip(&offsets) {
        let place = put(&mut out, *name, section);
        assert!(section.name != ".data.rel.ro" || place == slots_place);
    }
    let last = offsets[sections.len()];
    let (name, kind) = (".shstrtab", 3);
    let section = Section { name, kind, flags: 0, bytes: strings, link: 0, entry: 0 };
    put(&mut out, last, &section);
    out.resize(out.len().next_multiple_of(64), 0);
    let place = out.len() as u64;
    out.extend_from_slice(&table);
    out[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out[16..20].copy_from_slice(&[3, 0, 62, 0]);
    out[20] = 1;
    out[0x28..0x30].copy_from_slice(&place.to_le_bytes());
    out[0x34] = 64;
    out[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
    out[0x3c..0x3e].copy_from_slice(&(sections.len() as u16 + 2).to_le_bytes());
    out[0x3e..0x40].copy_from_slice(&(sections.len() as u16 + 1).to_le_bytes());
    out
}
