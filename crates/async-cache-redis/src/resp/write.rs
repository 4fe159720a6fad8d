//! Commands to bytes.

/// Appends commands to the bytes for the server.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer at the end of some bytes.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Begins a command of so many arguments, with its name. The arguments follow.
    pub fn begin(&mut self, arguments: usize) {
        self.length(b'*', arguments);
    }

    /// The next argument.
    pub fn argument(&mut self, argument: &[u8]) {
        self.argument_of(&[argument]);
    }

    /// The next argument, in parts.
    pub fn argument_of(&mut self, parts: &[&[u8]]) {
        self.length(b'$', parts.iter().map(|part| part.len()).sum());
        for part in parts {
            self.out.extend_from_slice(part);
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// A whole command.
    pub fn command(&mut self, arguments: &[&[u8]]) {
        self.begin(arguments.len());
        for argument in arguments {
            self.argument(argument);
        }
    }

    /// Bytes of whole arguments, in the form of the protocol.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn length(&mut self, marker: u8, length: usize) {
        self.out.push(marker);
        // The digits, from the last to the first.
        let start = self.out.len();
        let mut rest = length;
        loop {
            self.out.push(b"0123456789".get(rest % 10).copied().unwrap_or(b'0'));
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if let Some(digits) = self.out.get_mut(start..) {
            digits.reverse();
        }
        self.out.extend_from_slice(b"\r\n");
    }
}
