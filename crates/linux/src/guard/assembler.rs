//! An assembler for BPF programs: named instructions, and jumps to labels.
//!
//! Only what the guard needs. The encoding is that of `Documentation/bpf/standardization/instruction-set.rst` of the
//! kernel: eight bytes of operation, registers, offset and constant.

/// One instruction, as the kernel reads it.
#[repr(C)]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Instruction {
    operation: u8,
    /// Destination in one half, source in the other; which is which depends on the byte order.
    registers: u8,
    offset: i16,
    constant: i32,
}

/// A register. The kernel's calling convention: arguments from `R1` on, the result in `R0`, registers from `R6` on are
/// preserved across calls, and `Stack` is the end of the program's 512 bytes of stack.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Register {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R6 = 6,
    R7 = 7,
    Stack = 10,
}

/// The size of a load or store.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// Four bytes.
    Word = 0x00,
    /// Eight bytes.
    Double = 0x18,
}

/// A function of the kernel (`enum bpf_func_id` of `linux/bpf.h`).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Helper {
    /// Finds a map's value by its key.
    MapLookup = 1,
    /// The cookie of the socket's network namespace, which is never reused. Linux 5.7.
    NetnsCookie = 122,
    /// The ID of the current process's ancestor control group at a given level. Linux 5.7.
    CurrentAncestorCgroup = 123,
}

/// A place to jump to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Label(usize);

// Operation codes: the instruction class combined with the operation.
const LOAD_IMMEDIATE: u8 = 0x18;
const LOAD: u8 = 0x61;
const STORE_CONSTANT: u8 = 0x62;
const STORE: u8 = 0x63;
const MOVE_CONSTANT: u8 = 0xb7;
const MOVE: u8 = 0xbf;
const ADD_CONSTANT: u8 = 0x07;
const JUMP_IF_EQUAL: u8 = 0x1d;
const JUMP_IF_EQUAL_CONSTANT: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x5d;
const JUMP_UNLESS_EQUAL_CONSTANT: u8 = 0x55;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Value of the source register that marks the constant as a map's descriptor.
const MAP_DESCRIPTOR: u8 = 1;

/// A program that is being written.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    instructions: Vec<Instruction>,
    /// The position of each label, once it is bound.
    labels: Vec<Option<usize>>,
    /// The jump instructions, with their target labels.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// A label, to be set somewhere ahead.
    pub(super) fn new_label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Binds a label to the current position.
    pub(super) fn bind_label(&mut self, label: Label) {
        let here = self.instructions.len();
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(here);
        }
    }

    pub(super) fn move_register(&mut self, to: Register, from: Register) {
        self.push(MOVE, to as u8, from as u8, 0, 0);
    }

    pub(super) fn move_constant(&mut self, to: Register, value: i32) {
        self.push(MOVE_CONSTANT, to as u8, 0, 0, value);
    }

    pub(super) fn add(&mut self, to: Register, value: i32) {
        self.push(ADD_CONSTANT, to as u8, 0, 0, value);
    }

    /// Loads the value at `offset` bytes from the address in `from`.
    pub(super) fn load_memory(&mut self, width: Width, to: Register, from: Register, offset: i16) {
        self.push(LOAD | width as u8, to as u8, from as u8, offset, 0);
    }

    /// Stores a word `offset` bytes after the address in `to`.
    pub(super) fn store_register(&mut self, to: Register, offset: i16, from: Register) {
        self.push(STORE, to as u8, from as u8, offset, 0);
    }

    /// Stores a constant word `offset` bytes after the address in `to`.
    pub(super) fn store_constant(&mut self, to: Register, offset: i16, value: i32) {
        self.push(STORE_CONSTANT, to as u8, 0, offset, value);
    }

    pub(super) fn load_map(&mut self, to: Register, descriptor: i32) {
        self.push(LOAD_IMMEDIATE, to as u8, MAP_DESCRIPTOR, 0, descriptor);
        // The constant has 64 bits, the upper ones in a second instruction.
        self.push(0, 0, 0, 0, 0);
    }

    pub(super) fn call(&mut self, helper: Helper) {
        self.push(CALL, 0, 0, 0, helper as i32);
    }

    pub(super) fn jump_if_equal(&mut self, left: Register, right: Register, label: Label) {
        self.record_jump(label);
        self.push(JUMP_IF_EQUAL, left as u8, right as u8, 0, 0);
    }

    pub(super) fn jump_if(&mut self, left: Register, right: i32, label: Label) {
        self.record_jump(label);
        self.push(JUMP_IF_EQUAL_CONSTANT, left as u8, 0, 0, right);
    }

    pub(super) fn jump_unless_equal(&mut self, left: Register, right: Register, label: Label) {
        self.record_jump(label);
        self.push(JUMP_UNLESS_EQUAL, left as u8, right as u8, 0, 0);
    }

    pub(super) fn jump_unless(&mut self, left: Register, right: i32, label: Label) {
        self.record_jump(label);
        self.push(JUMP_UNLESS_EQUAL_CONSTANT, left as u8, 0, 0, right);
    }

    /// Ends the program; `R0` is the result.
    pub(super) fn exit(&mut self) {
        self.push(EXIT, 0, 0, 0, 0);
    }

    /// The program; `None` if the target of a jump is not bound or too far away.
    pub(super) fn into_program(mut self) -> Option<Vec<Instruction>> {
        for (from, label) in std::mem::take(&mut self.jumps) {
            let to = self.labels.get(label.0).copied().flatten()?;
            // Counted from the instruction after the jump.
            let distance = i64::try_from(to).ok()? - i64::try_from(from).ok()? - 1;
            self.instructions.get_mut(from)?.offset = i16::try_from(distance).ok()?;
        }
        Some(self.instructions)
    }

    fn record_jump(&mut self, label: Label) {
        self.jumps.push((self.instructions.len(), label));
    }

    fn push(&mut self, operation: u8, to: u8, from: u8, offset: i16, constant: i32) {
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        self.instructions.push(Instruction { operation, registers, offset, constant });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(operation: u8, registers: u8, offset: i16, constant: i32) -> Instruction {
        Instruction { operation, registers, offset, constant }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_are_written_as_the_kernel_reads_them() {
        let mut assembler = Assembler::default();
        assembler.move_register(Register::R6, Register::R1);
        assembler.move_constant(Register::R0, 1);
        assembler.add(Register::R2, -24);
        assembler.load_memory(Width::Word, Register::R2, Register::R6, 36);
        assembler.load_memory(Width::Double, Register::R2, Register::R7, 16);
        assembler.store_register(Register::Stack, -12, Register::R2);
        assembler.store_constant(Register::Stack, -24, 0);
        assembler.load_map(Register::R1, 7);
        assembler.call(Helper::MapLookup);
        assembler.exit();
        // The operations are those of BPF_MOV64_REG, BPF_MOV64_IMM, BPF_ALU64_IMM, BPF_LDX_MEM, BPF_STX_MEM, BPF_ST_MEM,
        // BPF_LD_MAP_FD, BPF_EMIT_CALL and BPF_EXIT_INSN in the kernel's linux/filter.h.
        let expected = [
            of(0xbf, 0x16, 0, 0),
            of(0xb7, 0x00, 0, 1),
            of(0x07, 0x02, 0, -24),
            of(0x61, 0x62, 36, 0),
            of(0x79, 0x72, 16, 0),
            of(0x63, 0x2a, -12, 0),
            of(0x62, 0x0a, -24, 0),
            of(0x18, 0x11, 0, 7),
            of(0x00, 0x00, 0, 0),
            of(0x85, 0x00, 0, 1),
            of(0x95, 0x00, 0, 0),
        ];
        assert_eq!(assembler.into_program().unwrap(), expected);
    }

    #[test]
    fn a_jump_counts_from_the_instruction_after_it() {
        let mut assembler = Assembler::default();
        let (next, end) = (assembler.new_label(), assembler.new_label());
        assembler.jump_if(Register::R0, 0, end);
        assembler.jump_unless_equal(Register::R0, Register::R2, next);
        assembler.bind_label(next);
        assembler.exit();
        assembler.bind_label(end);
        assembler.exit();
        let offsets: Vec<_> = assembler.into_program().unwrap().iter().map(|one| one.offset).collect();
        assert_eq!(offsets, [2, 0, 0, 0]);
    }

    #[test]
    fn a_jump_to_nowhere_is_no_program() {
        let mut assembler = Assembler::default();
        let nowhere = assembler.new_label();
        assembler.jump_unless(Register::R2, 17, nowhere);
        assembler.exit();
        assert_eq!(assembler.into_program(), None);
    }
}
