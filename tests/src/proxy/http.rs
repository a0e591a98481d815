//! Just enough HTTP/1.1 to pass requests on and to break them at a chosen byte.
//!
//! Owns: message framing (lengths, chunks, 100-continue). Must not: choose what is broken.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::{Fault, POLL, Shared};

/// Piece in which bodies are copied; small enough that a rate is smooth.
const PIECE: usize = 16 * 1024;
/// Longest message head taken.
const HEAD_LIMIT: u64 = 64 * 1024;

struct Head {
    first_line: String,
    headers: Vec<String>,
}

impl Head {
    fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut from = from.take(HEAD_LIMIT);
        let mut first_line = String::new();
        if from.read_line(&mut first_line)? == 0 {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "the head ends early"));
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            headers.push(line.to_owned());
        }
        Ok(Some(Self {
            first_line: first_line.trim_end().to_owned(),
            headers,
        }))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn length(&self) -> Option<u64> {
        self.get("content-length")
            .and_then(|value| value.parse().ok())
    }

    fn chunked(&self) -> bool {
        self.get("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.first_line);
        for line in &self.headers {
            text.push_str(line);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        to.write_all(text.as_bytes())
    }
}

/// Serves one client connection until either side, or a rule, ends it.
pub(super) fn serve(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    shared.watch(client)?;
    let done = relay(client, shared);
    let _ = client.shutdown(Shutdown::Both);
    done
}

fn relay(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut from_client = BufReader::with_capacity(PIECE, client);
    let mut to_client = client;
    let server = TcpStream::connect(shared.server)?;
    server.set_nodelay(true)?;
    shared.watch(&server)?;
    let mut from_server = BufReader::with_capacity(PIECE, &server);
    while let Some(mut request) = Head::read(&mut from_client)? {
        let mut words = request.first_line.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().to_owned();
        if request.chunked() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a request in chunks is not expected from an S3 client",
            ));
        }
        let length = request.length().unwrap_or(0);
        let fault = shared.decide(&method, &target);
        if request.get("expect").is_some() {
            request
                .headers
                .retain(|line| !line.to_ascii_lowercase().starts_with("expect:"));
            if !matches!(fault, Some(Fault::Status(_))) {
                to_client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
        }
        match fault {
            Some(Fault::Status(status)) => {
                return refuse(&mut from_client, to_client, length, status);
            }
            Some(Fault::Silence) => return hold(client, shared),
            Some(Fault::Delay(time)) => pause(time, shared),
            _ => {}
        }
        request.write(&mut &server)?;
        let sent = if let Some(Fault::CutRequest(bytes)) = fault {
            bytes.min(length)
        } else {
            length
        };
        copy(&mut from_client, &mut &server, sent, shared.rate())?;
        if matches!(fault, Some(Fault::CutRequest(_))) {
            return server.shutdown(Shutdown::Both);
        }
        let limit = match fault {
            Some(Fault::LostAnswer) => Answer::Nothing,
            Some(Fault::CutAnswer(bytes)) => Answer::UpTo(bytes),
            _ => Answer::Whole,
        };
        if !answer(&mut from_server, to_client, &method, limit)? {
            return Ok(());
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Whole,
    UpTo(u64),
    Nothing,
}

/// Passes one answer on; says whether the connection goes on after it.
fn answer(
    from: &mut impl BufRead,
    mut to: &TcpStream,
    method: &str,
    limit: Answer,
) -> io::Result<bool> {
    let head = loop {
        let Some(head) = Head::read(from)? else {
            return Ok(false);
        };
        let interim = head
            .first_line
            .split(' ')
            .nth(1)
            .is_some_and(|status| status.starts_with('1'));
        if !interim {
            break head;
        }
    };
    let status = head.first_line.split(' ').nth(1).unwrap_or_default();
    let bodiless = method == "HEAD" || status == "204" || status == "304";
    if limit == Answer::Nothing {
        // The body is read, so that the server has done its work before the client hears of the cut.
        copy(
            from,
            &mut io::sink(),
            if bodiless {
                0
            } else {
                head.length().unwrap_or(0)
            },
            u64::MAX,
        )?;
        return Ok(false);
    }
    head.write(&mut to)?;
    if bodiless {
        return Ok(true);
    }
    if let Answer::UpTo(bytes) = limit {
        copy(
            from,
            &mut to,
            bytes.min(head.length().unwrap_or(0)),
            u64::MAX,
        )?;
        return Ok(false);
    }
    if head.chunked() {
        copy_chunks(from, &mut to)?;
    } else if let Some(length) = head.length() {
        copy(from, &mut to, length, u64::MAX)?;
    } else {
        io::copy(from, &mut to)?;
        return Ok(false);
    }
    Ok(true)
}

/// Answers with an S3 error. The body of the request is read first, else the client may see a reset instead of the answer.
fn refuse(from: &mut impl Read, mut to: &TcpStream, length: u64, status: u16) -> io::Result<()> {
    let code = match status {
        503 => "SlowDown",
        500 => "InternalError",
        403 => "AccessDenied",
        429 => "TooManyRequests",
        507 => "InsufficientStorage",
        _ => "Injected",
    };
    copy(from, &mut io::sink(), length, u64::MAX)?;
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected by the test</Message></Error>"
    );
    let head = format!(
        "HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n",
        body.len()
    );
    to.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes())
}

/// Reads and ignores what comes, until the client or the proxy gives up.
fn hold(mut client: &TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_read_timeout(Some(POLL))?;
    let mut sink = [0; PIECE];
    while !shared.stopped() {
        match client.read(&mut sink) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn pause(time: Duration, shared: &Shared) {
    let begin = Instant::now();
    while begin.elapsed() < time && !shared.stopped() {
        std::thread::sleep(POLL.min(time));
    }
}

fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    length: u64,
    bytes_per_second: u64,
) -> io::Result<()> {
    let mut piece = [0; PIECE];
    let begin = Instant::now();
    let mut done: u64 = 0;
    while done < length {
        let want = usize::try_from((length - done).min(PIECE as u64)).expect("at most a piece");
        let got = from.read(&mut piece[..want])?;
        if got == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "a body ends early"));
        }
        to.write_all(&piece[..got])?;
        done += got as u64;
        let due = Duration::from_micros(done.saturating_mul(1_000_000) / bytes_per_second);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    Ok(())
}

fn copy_chunks(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        to.write_all(line.as_bytes())?;
        let digits = line.trim().split(';').next().unwrap_or_default();
        let length = u64::from_str_radix(digits, 16)
            .map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
        if length == 0 {
            break;
        }
        copy(from, to, length + 2, u64::MAX)?;
    }
    loop {
        let mut line = String::new();
        let read = from.read_line(&mut line)?;
        to.write_all(line.as_bytes())?;
        if read == 0 || line.trim().is_empty() {
            return Ok(());
        }
    }
}
