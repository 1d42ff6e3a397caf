package gateway_test

import (
	"os"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child()) // this process is a gateway of TestHostileService
	}
	natstest.VerifyTestMain(m)
}
