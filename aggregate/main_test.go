package aggregate_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

func TestMain(m *testing.M) {
	if p := os.Getenv(crashEnv); p != "" {
		// A process that TestReactorProcessDies starts to see it die.
		fmt.Fprintln(os.Stderr, crashing(p))
		os.Exit(1)
	}
	if url := os.Getenv(servingEnv); url != "" {
		// A process that TestServicesAreKilled starts, to kill it.
		fmt.Fprintln(os.Stderr, serving(url, os.Getenv(servingEnvStore)))
		os.Exit(1)
	}
	natstest.VerifyTestMain(m)
}
