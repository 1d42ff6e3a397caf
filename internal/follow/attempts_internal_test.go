package follow

import (
	"testing"
	"time"
)

// After a fault what nobody answered is tried again soon; every third attempt leaves a
// slow server its time. Pauses between them grow from a moment to half a second.
func TestAttemptsAfterAFault(t *testing.T) {
	t.Parallel()
	for failures, want := range []time.Duration{
		time.Second, time.Second, 10 * time.Second, time.Second, time.Second, 10 * time.Second, time.Second,
	} {
		if got := attemptFor(failures, 10*time.Second); got != want {
			t.Errorf("after %d failures: %v, want %v", failures, got, want)
		}
	}
	if got := attemptFor(2, time.Second); got != patientMin {
		t.Errorf("with a short lease: %v", got)
	}
	for failures := 1; failures < 100; failures++ {
		most := resetWaitMax
		if failures < 6 {
			most = min(most, resetWaitMin<<(failures-1))
		}
		for range 100 {
			if got := backoff(failures, resetWaitMin, resetWaitMax); got <= 0 || got > most+time.Millisecond {
				t.Fatalf("after %d failures: %v, want up to %v", failures, got, most)
			}
		}
	}
}
