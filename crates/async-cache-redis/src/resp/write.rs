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

    fn length(&mut self, marker: u8, length: usize) {
        self.out.push(marker);
        self.out.extend_from_slice(length.to_string().as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }
}
