package aggregate

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rossby-go/rossby/jetstream"
)

// Limits of what a call carries beside its command. They keep it within one
// message's headers, with room to spare.
const (
	maxKey      = 128
	maxCode     = 128
	maxText     = 256
	maxMetadata = 16 << 10
)

// validate refuses what could be found neither now nor later, and what would not
// arrive as it was given: ids and metadata travel as headers.
func (c *call) validate(now time.Time) error {
	for _, f := range []struct {
		field, value string
		most         int
	}{
		{"command id", c.commandID, jetstream.MaxIDLength}, {"correlation", c.correlation, maxText},
		{"causation", c.causation, maxText},
	} {
		if err := validText(f.field, f.value, f.most); err != nil {
			return err
		}
	}
	if at, ok := jetstream.CommandIDTime(c.commandID); ok && at.After(now.Add(commandSkew)) {
		return &jetstream.InvalidError{
			Field: "command id", Value: c.commandID,
			Reason: fmt.Sprintf("was made at %s, ahead of this machine's clock (%s)",
				at.Format(time.RFC3339), now.UTC().Format(time.RFC3339)),
		}
	}
	if c.traceParent != "" {
		if err := validToken("traceparent", c.traceParent); err != nil {
			return err
		}
	}
	if t := c.trigger; t != nil {
		for _, f := range []struct{ field, value string }{
			{"trigger's subscriber", t.Subscriber}, {"trigger's event id", t.EventID}, {"trigger's step", t.Step},
		} {
			if err := validToken(f.field, f.value); err != nil {
				return err
			}
		}
	}
	return validMetadata(c.metadata)
}

func validMetadata(m map[string]string) error {
	size := 0
	for k, v := range m {
		size += len(k) + len(v)
		if k == "" || len(k) > maxKey || strings.ContainsFunc(k, notKey) {
			return &jetstream.InvalidError{
				Field: "metadata key", Value: k, Reason: fmt.Sprintf("is not 1 to %d letters, digits, '-', '_' and '.'", maxKey),
			}
		}
		if err := validText("metadata "+strconv.Quote(k), v, maxMetadata); err != nil {
			return err
		}
	}
	if size > maxMetadata {
		return &jetstream.InvalidError{
			Field: "metadata", Value: strconv.Itoa(size),
			Reason: fmt.Sprintf("is its size in bytes: at most %d are carried", maxMetadata),
		}
	}
	return nil
}

func notKey(r rune) bool {
	return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '_' && r != '.'
}

// validToken wants a word that can stand in a header beside others.
func validToken(field, text string) error {
	ok := text != "" && len(text) <= maxKey
	for i := 0; ok && i < len(text); i++ {
		ok = text[i] > ' ' && text[i] <= '~'
	}
	if ok {
		return nil
	}
	return &jetstream.InvalidError{
		Field: field, Value: text, Reason: fmt.Sprintf("is not 1 to %d printable ASCII characters without blanks", maxKey),
	}
}

// validText wants a text that a header gives back as it was.
func validText(field, text string, most int) error {
	var reason string
	switch {
	case len(text) > most:
		reason = fmt.Sprintf("is longer than %d bytes", most)
	case !utf8.ValidString(text):
		reason = "is not UTF-8"
	case strings.ContainsFunc(text, unicode.IsControl):
		reason = "holds a line break or another control character"
	case strings.TrimSpace(text) != text:
		reason = "begins or ends with a blank"
	default:
		return nil
	}
	return &jetstream.InvalidError{Field: field, Value: text, Reason: reason}
}
