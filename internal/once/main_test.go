package once_test

import (
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }
