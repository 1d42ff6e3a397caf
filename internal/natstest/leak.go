package natstest

import (
	"testing"

	"go.uber.org/goleak"
)

// VerifyTestMain runs the tests of a package and fails when a goroutine outlives
// them, but for those that nats-server forgets.
func VerifyTestMain(m *testing.M) {
	const server = "github.com/nats-io/nats-server/v2/server"
	goleak.VerifyTestMain(m,
		// A stream that is created while its server shuts down is never stopped.
		goleak.IgnoreAnyFunction(server+".(*fileStore).flushStreamStateLoop"),
		// The server's clock runs on as long as such a stream lives.
		goleak.IgnoreAnyFunction(server+"/ats.Register.func1"),
	)
}
