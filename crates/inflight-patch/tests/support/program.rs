//! Small programs as ELF, PE and Mach-O images: functions that call each other, tables that point to them.

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

/// What a program runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Machine {
    X86,
    Arm,
}

/// A function's bytes, and what has to be filled in once it is known where everything is.
fn body(function: Function, machine: Machine) -> (Vec<u8>, Vec<Fixup>) {
    match machine {
        Machine::X86 => x86_body(function),
        Machine::Arm => arm_body(function),
    }
}

fn arm_body(function: Function) -> (Vec<u8>, Vec<Fixup>) {
    let (mut bytes, mut fixups) = (Vec::new(), Vec::new());
    for step in 0..4 + random(u64::from(function)) % 12 {
        let seed = random(u64::from(function) << 8 | step);
        let mut put = |instruction: u32| bytes.extend_from_slice(&instruction.to_le_bytes());
        // Additions of registers.
        (0..1 + seed % 4).for_each(|at| put(0x8b00_0000 | random(seed ^ at) as u32 & 0x1f_03ff));
        if seed & 0x100 == 0 {
            put(0x9400_0000);
            fixups.push(Fixup::Call(bytes.len() - 4, (seed >> 16) as u32));
        } else {
            // The page of a slot, and one more addition before the rest.
            [0x9000_0003, 0x8b01_0041, 0xf940_0063].into_iter().for_each(put);
            fixups.push(Fixup::Slot(bytes.len() - 12, (seed >> 16) as u32));
        }
    }
    bytes.extend_from_slice(&0xd65f_03c0u32.to_le_bytes());
    (bytes, fixups)
}

fn x86_body(function: Function) -> (Vec<u8>, Vec<Fixup>) {
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

/// The code of a program. Each function calls whoever of `functions` is nearest to what its body
/// asks for, so that one more function changes few calls but moves all that follow.
struct Code {
    machine: Machine,
    bytes: Vec<u8>,
    /// Where each function starts, and its length.
    starts: Vec<u64>,
    lengths: Vec<u32>,
    /// Of each function: what has to be filled in.
    fixups: Vec<Vec<Fixup>>,
}

impl Code {
    fn of(functions: &[Function], machine: Machine) -> Code {
        let (mut starts, mut lengths, mut text) = (Vec::new(), Vec::new(), Vec::new());
        let bodies = functions.iter().map(|function| body(*function, machine));
        let fixups = bodies.map(|(bytes, fixups)| {
            text.resize(text.len().next_multiple_of(16), 0xcc);
            starts.push(text.len() as u64);
            lengths.push(bytes.len() as u32);
            text.extend_from_slice(&bytes);
            fixups
        });
        let fixups = fixups.collect();
        Code { machine, bytes: text, starts, lengths, fixups }
    }

    /// Fills in where everything is: code, and a slot of 8 bytes for each function.
    fn link(&mut self, functions: &[Function], text_address: u64, slots_address: u64) {
        let called = |wanted: u32| {
            let number = (0..functions.len()).min_by_key(|n| functions[*n].wrapping_sub(wanted));
            number.expect("a program has functions")
        };
        for (start, fixups) in self.starts.iter().zip(&self.fixups) {
            for fixup in fixups {
                let (at, target) = match fixup {
                    Fixup::Call(at, wanted) => (*at, text_address + self.starts[called(*wanted)]),
                    Fixup::Slot(at, wanted) => (*at, slots_address + 8 * called(*wanted) as u64),
                };
                let at = *start as usize + at;
                let here = text_address + at as u64;
                let mut add = |behind: usize, bits: u32| {
                    let bytes = &mut self.bytes[at + behind..at + behind + 4];
                    let word = u32::from_le_bytes((&*bytes).try_into().expect("4 bytes")) | bits;
                    bytes.copy_from_slice(&word.to_le_bytes());
                };
                match (self.machine, fixup) {
                    (Machine::X86, _) => add(0, target.wrapping_sub(here + 4) as u32),
                    (Machine::Arm, Fixup::Call(..)) => {
                        add(0, (target.wrapping_sub(here) >> 2) as u32 & 0x3ff_ffff);
                    }
                    (Machine::Arm, Fixup::Slot(..)) => {
                        let pages = (target >> 12).wrapping_sub(here >> 12) as u32;
                        add(0, (pages & 3) << 29 | (pages >> 2 & 0x7_ffff) << 5);
                        add(8, (target as u32 & 0xfff) >> 3 << 10);
                    }
                }
            }
        }
    }
}

/// A program as an ELF image.
pub fn program(functions: &[Function]) -> Vec<u8> {
    elf_program(functions, Machine::X86)
}

/// The same for AArch64.
#[allow(dead_code, reason = "not everybody wants one")]
pub fn arm_program(functions: &[Function]) -> Vec<u8> {
    elf_program(functions, Machine::Arm)
}

fn elf_program(functions: &[Function], machine: Machine) -> Vec<u8> {
    let mut code = Code::of(functions, machine);
    let text_address = TEXT_PLACE + ADDRESS_AHEAD;
    let slots_place = (TEXT_PLACE + code.bytes.len() as u64).next_multiple_of(64);
    let slots_address = slots_place + ADDRESS_AHEAD;
    code.link(functions, text_address, slots_address);
    let relative = if machine == Machine::X86 { 8 } else { 1027 };
    let Code { bytes: text, starts, lengths, .. } = code;
    let address = |number: usize| text_address + starts[number];
    let (mut relocations, mut symbols, mut names) = (Vec::new(), vec![0; 24], vec![0]);
    let mut unwind: Vec<u8> = [&20u32.to_le_bytes()[..], &[0; 20]].concat();
    let places = Places::of(&text, functions.len());
    for (number, function) in functions.iter().enumerate() {
        for word in [slots_address + 8 * number as u64, relative, address(number)] {
            relocations.extend_from_slice(&word.to_le_bytes());
        }
        symbols.extend_from_slice(&(names.len() as u32).to_le_bytes());
        symbols.extend_from_slice(&[2, 0, 1, 0]);
        symbols.extend_from_slice(&address(number).to_le_bytes());
        symbols.extend_from_slice(&u64::from(lengths[number]).to_le_bytes());
        names.extend_from_slice(format!("function_{function:x}\0").as_bytes());
        let here = places.unwind + ADDRESS_AHEAD + unwind.len() as u64;
        unwind.extend_from_slice(&20u32.to_le_bytes());
        unwind.extend_from_slice(&(unwind.len() as u32).to_le_bytes());
        unwind.extend_from_slice(&(address(number).wrapping_sub(here + 8) as u32).to_le_bytes());
        unwind.extend_from_slice(&lengths[number].to_le_bytes());
        unwind.extend_from_slice(&[0; 8]);
    }
    let section =
        |name, kind, flags, bytes, link, entry| Section { name, kind, flags, bytes, link, entry };
    image(
        machine,
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
fn image(machine: Machine, sections: &[Section], slots_place: u64) -> Vec<u8> {
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
    let machine = if machine == Machine::X86 { 62 } else { 183 };
    out[16..20].copy_from_slice(&[3, 0, machine, 0]);
    out[20] = 1;
    out[0x28..0x30].copy_from_slice(&place.to_le_bytes());
    out[0x34] = 64;
    out[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
    out[0x3c..0x3e].copy_from_slice(&(sections.len() as u16 + 2).to_le_bytes());
    out[0x3e..0x40].copy_from_slice(&(sections.len() as u16 + 1).to_le_bytes());
    out
}

/// Where images of Windows want to be loaded.
const WINDOWS_BASE: u64 = 0x1_8000_0000;
/// Where the first section of one comes to lie: as a spot, and in the file.
const WINDOWS_TEXT: (u32, u32) = (0x1000, 0x400);

/// A program as a PE image.
#[allow(dead_code, reason = "not everybody wants one")]
pub fn windows_program(functions: &[Function]) -> Vec<u8> {
    let mut code = Code::of(functions, Machine::X86);
    let text_spot = WINDOWS_TEXT.0;
    let constants_spot = (text_spot + code.bytes.len() as u32).next_multiple_of(0x1000);
    code.link(functions, text_spot.into(), constants_spot.into());
    let Code { bytes: text, starts, lengths, .. } = code;
    let spots: Vec<u32> = starts.iter().map(|start| text_spot + *start as u32).collect();
    let (mut constants, mut records) = (Vec::new(), Vec::new());
    for spot in &spots {
        constants.extend_from_slice(&(WINDOWS_BASE + u64::from(*spot)).to_le_bytes());
    }
    for ((spot, length), function) in spots.iter().zip(&lengths).zip(functions) {
        let unwind = constants_spot + constants.len() as u32;
        for word in [*spot, spot + length, unwind] {
            records.extend_from_slice(&word.to_le_bytes());
        }
        // With a handler, and four codes for the prologue.
        let codes = random(u64::from(*function)).to_le_bytes();
        constants.extend_from_slice(&[9, 4, 4, 0, 4]);
        constants.extend_from_slice(&codes[1..]);
        for word in [spots[0], spot + 5, u32::MAX] {
            constants.extend_from_slice(&word.to_le_bytes());
        }
    }
    let exports = constants_spot + constants.len() as u32;
    let count = functions.len() as u32;
    let tables = exports + 40;
    for word in [0, 0, 0, 0, 1, count, count, tables, tables + 4 * count, tables + 8 * count] {
        constants.extend_from_slice(&word.to_le_bytes());
    }
    let mut names = Vec::new();
    let names_spot = tables + 10 * count;
    let mut name_spots = Vec::new();
    for function in functions {
        name_spots.push(names_spot + names.len() as u32);
        names.extend_from_slice(format!("function_{function:x}\0").as_bytes());
    }
    for word in spots.iter().chain(&name_spots) {
        constants.extend_from_slice(&word.to_le_bytes());
    }
    constants.extend((0..count).flat_map(|number| (number as u16).to_le_bytes()));
    constants.extend_from_slice(&names);
    let exports = exports..constants_spot + constants.len() as u32;
    windows_image(
        [
            (".text", 0x6000_0020, text),
            (".rdata", 0x4000_0040, constants),
            (".pdata", 0x4000_0040, records),
        ],
        exports,
    )
}

/// Lays sections out behind headers; the last one is the table of functions.
fn windows_image(sections: [(&str, u32, Vec<u8>); 3], exports: std::ops::Range<u32>) -> Vec<u8> {
    let mut out = vec![0; WINDOWS_TEXT.1 as usize];
    let (mut spot, mut headers) = (WINDOWS_TEXT.0, Vec::new());
    let mut functions = 0..0;
    for (name, flags, bytes) in sections {
        let (length, place) = (bytes.len() as u32, out.len() as u32);
        out.extend_from_slice(&bytes);
        out.resize(out.len().next_multiple_of(0x200), 0);
        functions = spot..spot + length;
        let mut header = [0; 40];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let words = [length, spot, out.len() as u32 - place, place, 0, 0, 0, flags];
        for (at, word) in words.iter().enumerate() {
            header[8 + 4 * at..12 + 4 * at].copy_from_slice(&word.to_le_bytes());
        }
        headers.extend_from_slice(&header);
        spot = (spot + length).next_multiple_of(0x1000);
    }
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x80u32.to_le_bytes());
    put(0x80, b"PE\0\0\x64\x86\x03\0");
    // Of the optional header: its length, and what it starts with.
    put(0x94, &240u16.to_le_bytes());
    put(0x98, &0x20bu16.to_le_bytes());
    put(0x98 + 24, &WINDOWS_BASE.to_le_bytes());
    put(0x98 + 56, &spot.to_le_bytes());
    put(0x98 + 108, &16u32.to_le_bytes());
    for (number, range) in [(0, exports), (3, functions)] {
        put(0x98 + 112 + 8 * number, &range.start.to_le_bytes());
        put(0x98 + 116 + 8 * number, &(range.end - range.start).to_le_bytes());
    }
    put(0x98 + 240, &headers);
    out
}

/// Where programs of macOS are loaded, where their code starts behind that, and how much farther data is
/// in memory than in the file.
const MAC_BASE: u64 = 1 << 32;
const MAC_TEXT: u64 = 0x1000;
const MAC_GAP: u64 = 0x4000;

/// A program for AArch64 as a Mach-O image.
#[allow(dead_code, reason = "not everybody wants one")]
pub fn mac_program(functions: &[Function]) -> Vec<u8> {
    let mut code = Code::of(functions, Machine::Arm);
    let unwind_address = (MAC_TEXT + code.bytes.len() as u64).next_multiple_of(8);
    let unwind_bytes = 24 + 32 * functions.len() as u64;
    let slots_place = (unwind_address + unwind_bytes).next_multiple_of(0x1000);
    code.link(functions, MAC_TEXT, slots_place + MAC_GAP);
    let Code { bytes: text, starts, lengths, .. } = code;
    // Of code and what is said about unwinding it: a common entry, and one for each function.
    let mut unwind: Vec<u8> = [&20u32.to_le_bytes()[..], &[0; 20]].concat();
    let (mut slots, mut symbols, mut names) = (Vec::new(), Vec::new(), vec![0]);
    for ((start, length), function) in starts.iter().zip(&lengths).zip(functions) {
        let (address, entry) = (MAC_TEXT + start, unwind.len() as u64);
        slots.extend_from_slice(&(MAC_BASE + address).to_le_bytes());
        unwind.extend_from_slice(&28u32.to_le_bytes());
        unwind.extend_from_slice(&(entry as u32 + 4).to_le_bytes());
        let distance = address.wrapping_sub(unwind_address + entry + 8);
        unwind.extend_from_slice(&distance.to_le_bytes());
        unwind.extend_from_slice(&u64::from(*length).to_le_bytes());
        // No table of its own, and what the function does with its frame.
        unwind.push(0);
        unwind.extend_from_slice(&random(u64::from(*function)).to_le_bytes()[..7]);
        symbols.extend_from_slice(&(names.len() as u32).to_le_bytes());
        symbols.extend_from_slice(&[0x0f, 1, 0, 0]);
        symbols.extend_from_slice(&(MAC_BASE + address).to_le_bytes());
        names.extend_from_slice(format!("_function_{function:x}\0").as_bytes());
    }
    let slots_end = (slots_place + slots.len() as u64).next_multiple_of(0x1000);
    let mut commands = Vec::new();
    let segment = |name: &str,
                   range: std::ops::Range<u64>,
                   gap: u64,
                   sections: &[(&str, u64, &[u8], u32)]| {
        let padded = |name: &str| [name.as_bytes(), &[0; 16][name.len()..]].concat();
        let length = range.end - range.start;
        let mut command = [0x19, 72 + 80 * sections.len() as u32].map(u32::to_le_bytes).concat();
        command.extend(padded(name));
        let address = MAC_BASE + gap + range.start;
        command.extend([address, length, range.start, length].map(u64::to_le_bytes).concat());
        command.extend([7, 7, sections.len() as u32, 0].map(u32::to_le_bytes).concat());
        for (section, place, bytes, flags) in sections {
            command.extend(padded(section));
            command.extend(padded(name));
            let address = MAC_BASE + gap + place;
            command.extend([address, bytes.len() as u64].map(u64::to_le_bytes).concat());
            let place = *place as u32;
            command.extend([place, 3, 0, 0, *flags, 0, 0, 0].map(u32::to_le_bytes).concat());
        }
        command
    };
    let code_sections = [
        ("__text", MAC_TEXT, &text[..], 0x8000_0400),
        ("__eh_frame", unwind_address, &unwind, 0x6800_000b),
    ];
    commands.extend(segment("__TEXT", 0..slots_place, 0, &code_sections));
    let data = [("__const", slots_place, &slots[..], 0)];
    commands.extend(segment("__DATA_CONST", slots_place..slots_end, MAC_GAP, &data));
    let end = slots_end + (symbols.len() + names.len()) as u64;
    commands.extend(segment("__LINKEDIT", slots_end..end, MAC_GAP, &[]));
    let names_place = slots_end as u32 + symbols.len() as u32;
    let table = [2, 24, slots_end as u32, functions.len() as u32, names_place, names.len() as u32];
    commands.extend(table.map(u32::to_le_bytes).concat());
    let header = [0xfeed_facf, 0x0100_000c, 0, 6, 4, commands.len() as u32, 0, 0];
    let mut out = header.map(u32::to_le_bytes).concat();
    out.extend(commands);
    let places = [MAC_TEXT, unwind_address, slots_place, slots_end];
    for (place, bytes) in places.into_iter().zip([text, unwind, slots, [symbols, names].concat()]) {
        out.resize(place as usize, 0);
        out.extend(bytes);
    }
    out
}

/// A universal file of images.
#[allow(dead_code, reason = "not everybody wants one")]
pub fn universal(images: &[&[u8]]) -> Vec<u8> {
    let mut out = [0xcafe_babe, images.len() as u32].map(u32::to_be_bytes).concat();
    let mut place = 0x1000u32;
    for image in images {
        let length = image.len() as u32;
        out.extend([0x0100_000c, 0, place, length, 12].map(u32::to_be_bytes).concat());
        place = (place + length).next_multiple_of(0x1000);
    }
    for image in images {
        out.resize(out.len().next_multiple_of(0x1000), 0);
        out.extend_from_slice(image);
    }
    out
}
