package tracing_test

import (
	"testing"

	"github.com/rossby-go/rossby/internal/tracing"
)

// What is stored as a trace context may be anything; what is read as one is written
// again as it was.
func FuzzParse(f *testing.F) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
	for _, text := range []string{
		"", trace + "1", trace + "0", "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-x-y-01",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "ff" + trace[2:] + "1",
	} {
		f.Add(text)
	}
	if got := tracing.Text(tracing.Parse(trace + "1")); got != trace+"1" {
		f.Errorf("got %q", got)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sc := tracing.Parse(text)
		if !sc.IsValid() {
			if got := tracing.Text(sc); got != "" {
				t.Fatalf("%q is no context, and written as %q", text, got)
			}
			return
		}
		again := tracing.Parse(tracing.Text(sc))
		if again.TraceID() != sc.TraceID() || again.SpanID() != sc.SpanID() || again.IsSampled() != sc.IsSampled() {
			t.Fatalf("%q is read as %v, then as %v", text, sc, again)
		}
	})
}
