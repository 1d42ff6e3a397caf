package rig

import (
	"bufio"
	"bytes"
	"strconv"
)

// readFrame appends one message of NATS's protocol, of either side: a line, and what
// it says that follows.
func readFrame(in *bufio.Reader, frame []byte) ([]byte, error) {
	for {
		part, err := in.ReadSlice('\n')
		frame = append(frame, part...)
		if err == nil {
			break
		}
		if err != bufio.ErrBufferFull { //nolint:errorlint // it is returned as it is
			return frame, err
		}
	}
	n := payload(frame)
	if n < 0 {
		return frame, nil
	}
	line := len(frame)
	frame = append(frame, make([]byte, n+2)...)
	for read := line; read < len(frame); {
		m, err := in.Read(frame[read:])
		if read += m; err != nil {
			return frame, err
		}
	}
	return frame, nil
}

// payload is the length of what follows a line, below 0 for nothing.
func payload(line []byte) int {
	for _, verb := range []string{"MSG ", "HMSG ", "PUB ", "HPUB ", "RMSG ", "HRMSG "} {
		if len(line) > len(verb) && bytes.EqualFold(line[:len(verb)], []byte(verb)) {
			line = bytes.TrimSpace(line)
			n, err := strconv.Atoi(string(line[bytes.LastIndexByte(line, ' ')+1:]))
			if err != nil {
				return -1
			}
			return n
		}
	}
	return -1
}

// losable tells an acknowledgement of JetStream or a command service, or a publish with anything but a
// request of its API.
func losable(frame []byte, down bool) bool {
	line, rest, _ := bytes.Cut(frame, []byte("\r\n"))
	fields := bytes.Fields(line)
	if len(fields) < 3 {
		return false
	}
	if down {
		ack := bytes.HasPrefix(rest, []byte(`{"stream":"`)) && bytes.Contains(rest, []byte(`"seq":`))
		// A service's reply has a type like a commit, but is none.
		reply := bytes.Contains(rest, []byte("\r\nContent-Type:")) && !bytes.Contains(rest, []byte("\r\nRossby-Commit:"))
		return ack || reply
	}
	publish := bytes.EqualFold(fields[0], []byte("PUB")) || bytes.EqualFold(fields[0], []byte("HPUB"))
	return publish && !bytes.HasPrefix(fields[1], []byte("$JS.")) && !bytes.HasPrefix(fields[1], []byte("_INBOX."))
}
