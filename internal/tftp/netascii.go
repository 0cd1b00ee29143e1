package tftp

import (
	"bytes"
	"fmt"
	"io"
)

// maxNetascii bounds what is turned into netascii: it is for texts, and a whole one is kept in memory.
const maxNetascii = 1 << 20

// netascii is a text as it travels in that mode.
type netascii struct {
	*bytes.Reader
	io.Closer
}

// toNetascii returns a content with the line ends of RFC 764: LF becomes CR LF, and CR becomes CR NUL.
func toNetascii(c Content) (Content, error) {
	if c.Size() > maxNetascii {
		return nil, &Error{CodeIllegal, fmt.Sprintf("mode netascii is for texts of up to %d KiB: ask for octet", maxNetascii>>10)}
	}
	text := make([]byte, c.Size())
	if n, err := c.ReadAt(text, 0); n < len(text) {
		return nil, fmt.Errorf("read content: %w", err)
	}
	text = bytes.ReplaceAll(text, []byte("\r"), []byte("\r\x00"))
	text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	return netascii{bytes.NewReader(text), c}, nil
}
