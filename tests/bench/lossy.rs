//! A broker of a few lines that loses every fiftieth message: MQTT 3.1.1, QoS 0, everybody gets
//! everything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Starts it; it ends with the test.
pub fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("it has one");
    let subscribers: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let subscribers = Arc::clone(&subscribers);
            // A connection ends with an error; what it had to do is done.
            thread::spawn(move || drop(serve(stream, &subscribers)));
        }
    });
    addr
}

fn serve(mut stream: TcpStream, subscribers: &Mutex<Vec<TcpStream>>) -> std::io::Result<()> {
    let mut seen = 0;
    loop {
        let mut frame = vec![0; 2];
        stream.read_exact(&mut frame)?;
        // The packets of this load are longer than 127 bytes only if they carry a payload, and
        // never longer than two digits tell.
        let mut length = usize::from(frame[1] & 0x7F);
        if frame[1] >= 0x80 {
            let mut second = [0];
            stream.read_exact(&mut second)?;
            length += usize::from(second[0]) << 7;
            frame.push(second[0]);
        }
        let body = frame.len();
        frame.resize(body + length, 0);
        stream.read_exact(&mut frame[body..])?;
        match frame[0] >> 4 {
            1 => stream.write_all(&[0x20, 2, 0, 0])?,
            8 => {
                stream.write_all(&[0x90, 3, frame[body], frame[body + 1], 0])?;
                lock(subscribers).push(stream.try_clone()?);
            }
            3 => {
                seen += 1;
                if seen % 50 != 0 {
                    for subscriber in lock(subscribers).iter_mut() {
                        subscriber.write_all(&frame)?;
                    }
                }
            }
            12 => stream.write_all(&[0xD0, 0])?,
            _ => return Ok(()),
        }
    }
}

fn lock(subscribers: &Mutex<Vec<TcpStream>>) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
    subscribers.lock().expect("nobody panics with it")
}
