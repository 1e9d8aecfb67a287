//! The system call `bpf(2)`, which has no safe wrapper: a map, programs, and attaching them. This file and `sys.rs` are
//! the only ones that may contain `unsafe`.

#![allow(unsafe_code, reason = "each call below says why it is sound")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use super::assembler::Instruction;
use super::program::Point;

// Commands, and types of the objects that they create (`linux/bpf.h`).
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const MAP_TYPE_HASH: u32 = 1;
const PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
/// Flag that has entries allocated when they are inserted, not all at once.
const NO_PREALLOC: u32 = 1;

/// Size of the buffer for the verifier's log, in bytes; the program is short, and so is its log.
const LOG: usize = 64 << 10;

/// A hash map with keys of `K` bytes and values of `V` bytes. The kernel frees it after this value and the last program
/// that uses it are gone.
#[derive(Debug)]
pub(super) struct Map<const K: usize, const V: usize>(OwnedFd);

/// Why the kernel rejected a program.
#[derive(Debug)]
pub(super) struct BpfLoadError {
    /// The error of the system call.
    pub(super) source: io::Error,
    /// The verifier's log; empty if it was not requested.
    pub(super) log: String,
}

/// The start of `union bpf_attr` as `BPF_MAP_CREATE` reads it.
#[repr(C)]
struct MapAttributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// As the commands on a map's elements read it.
#[repr(C)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// As `BPF_PROG_LOAD` reads it.
#[repr(C)]
struct ProgramAttributes {
    kind: u32,
    length: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    point: u32,
}

/// As `BPF_LINK_CREATE` reads it.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    target: u32,
    point: u32,
    flags: u32,
}

impl<const K: usize, const V: usize> Map<K, V> {
    /// Creates a map with room for this many entries.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_BPF`; others where memory is short.
    pub(super) fn new(entries: u32) -> io::Result<Self> {
        let size = |bytes: usize| u32::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput);
        let attributes = MapAttributes {
            kind: MAP_TYPE_HASH,
            key_size: size(K)?,
            value_size: size(V)?,
            max_entries: entries,
            flags: NO_PREALLOC,
        };
        // SAFETY: the command reads the attributes, in which there are no addresses.
        let map = unsafe { call(MAP_CREATE, &attributes)? };
        // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(map) }))
    }

    /// The descriptor that a program names the map by.
    pub(super) fn raw_descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Writes an entry, over one with this key.
    ///
    /// # Errors
    /// `E2BIG` when the map is full.
    pub(super) fn insert(&self, key: &[u8; K], value: &[u8; V]) -> io::Result<()> {
        // SAFETY: the kernel reads K bytes at the key and V bytes at the value, which are there for as long as it does.
        unsafe { call(MAP_UPDATE, &self.element_attributes(address_of(key), address_of(value))?) }.map(drop)
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub(super) fn remove(&self, key: &[u8; K]) -> io::Result<()> {
        // SAFETY: the kernel reads K bytes at the key, which are there for as long as it does, and no value.
        unsafe { call(MAP_DELETE, &self.element_attributes(address_of(key), 0)?) }.map(drop)
    }

    fn element_attributes(&self, key: u64, value: u64) -> io::Result<ElementAttributes> {
        Ok(ElementAttributes { map: descriptor_number(&self.0)?, padding: 0, key, value, flags: 0 })
    }
}

/// Loads a program into the kernel.
///
/// # Errors
/// With the verifier's log if the verifier rejected it.
pub(super) fn load_program(point: Point, instructions: &[Instruction]) -> Result<OwnedFd, BpfLoadError> {
    load_with(point, instructions, &mut []).or_else(|quiet| {
        // Requesting the log costs more and can fail by itself, so it is only requested after a rejection.
        let mut log = vec![0; LOG];
        load_with(point, instructions, &mut log).map_err(|_again| {
            let said = log.split(|byte| *byte == 0).next().unwrap_or_default();
            BpfLoadError { source: quiet, log: String::from_utf8_lossy(said).trim_end().to_owned() }
        })
    })
}

fn load_with(point: Point, instructions: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().zip(point.name().bytes().take(15)) {
        *to = from;
    }
    let attributes = ProgramAttributes {
        kind: PROG_TYPE_CGROUP_SOCK_ADDR,
        length: u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: address_of(instructions),
        // None of the functions that it calls asks for one.
        license: address_of(c""),
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr().expose_provenance() as u64 },
        kernel_version: 0,
        flags: 0,
        name,
        interface: 0,
        point: point as u32,
    };
    // SAFETY: the kernel reads `length` instructions of eight bytes and a text that ends with a zero, and writes at most
    // `log_size` bytes; all three are there for as long as it does.
    let program = unsafe { call(PROG_LOAD, &attributes)? };
    // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

/// Attaches a program to a control group: the kernel runs it for the group's processes until the returned descriptor is
/// closed, at the latest when this process ends.
///
/// # Errors
/// `PermissionDenied` without `CAP_NET_ADMIN`, or if an attached program tolerates no other;
/// `InvalidInput` before Linux 5.7.
pub(super) fn attach_program(program: impl AsFd, group: impl AsFd, point: Point) -> io::Result<OwnedFd> {
    // By reference: a program that is closed before the call has no number any more.
    let (program_number, target) = (descriptor_number(&program)?, descriptor_number(&group)?);
    let attributes = LinkAttributes { program: program_number, target, point: point as u32, flags: 0 };
    // SAFETY: the command reads the attributes, in which there are no addresses.
    let link = unsafe { call(LINK_CREATE, &attributes)? };
    // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// The system call.
///
/// # Safety
/// The attributes must match the command. Memory at addresses in them must be valid for the stated lengths, and
/// writable if the command writes to it.
unsafe fn call<A>(command: libc::c_int, attributes: &A) -> io::Result<i32> {
    // SAFETY: the kernel reads exactly the size of the attributes, and treats the rest of the union as zeros.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<A>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(answer).map_err(|_| io::Error::other("the kernel returned no descriptor"))
}

fn address_of<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>().expose_provenance() as u64
}

fn descriptor_number(descriptor: impl AsFd) -> io::Result<u32> {
    u32::try_from(descriptor.as_fd().as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput.into())
}
