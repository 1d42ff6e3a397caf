package natstest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// VerifyTestMain runs the tests of a package and fails when a goroutine outlives
// them, but for those that nats-server forgets. One that ends late is no leak: only
// what still runs after [Patience] is.
func VerifyTestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := leak(); err != nil {
			_, _ = fmt.Fprintf(os.Stderr, "natstest: goroutines outlive the tests: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

// leak looks for goroutines again and again; each look takes some time by itself.
func leak() error {
	const server = "github.com/nats-io/nats-server/v2/server"
	for began := time.Now(); ; {
		err := goleak.Find(
			// A stream that is created while its server shuts down is never stopped.
			goleak.IgnoreAnyFunction(server+".(*fileStore).flushStreamStateLoop"),
			// The server's clock runs on as long as such a stream lives.
			goleak.IgnoreAnyFunction(server+"/ats.Register.func1"),
		)
		if err == nil || time.Since(began) > Patience {
			return err
		}
	}
}
