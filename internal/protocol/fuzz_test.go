package protocol_test

import (
	"testing"

	"github.com/rossby-go/rossby/internal/protocol"
)

// FuzzTrigger: a trigger that is read is written as it was, or is refused.
func FuzzTrigger(f *testing.F) {
	f.Add("s e.0 debit bank-1z 1764072000000000")
	f.Add("s e.0 debit - -9223372036854775808")
	f.Add("s  debit - 5")
	f.Add("a b c d e")
	f.Fuzz(func(t *testing.T, text string) {
		trigger, err := protocol.ParseTrigger(text)
		if err != nil {
			return
		}
		again, err := protocol.ParseTrigger(trigger.String())
		if err != nil || again != trigger {
			t.Errorf("%q is %+v, then %+v, %v", text, trigger, again, err)
		}
	})
}
