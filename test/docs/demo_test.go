package docs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

// natsCLI is the nats command that the documents use.
const natsCLI = "github.com/nats-io/natscli/nats@v0.5.1"

// TestDemo runs the shell blocks of the README, and then those of the documents that
// talk about a bank, word for word but for this: the programs are built once from this
// repository, they listen where nobody else does, the load is a smaller one, and what is
// read from a view right after the command is waited for.
func TestDemo(t *testing.T) {
	t.Parallel()
	repository, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	bin, natsAddress, httpAddress := t.TempDir(), natstest.Addr(t), natstest.Addr(t)
	sh := &shell{dir: t.TempDir(), env: append(os.Environ(),
		"PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "GOBIN="+bin, "REPOSITORY="+repository,
		"NATS_URL=nats://"+natsAddress, "XDG_CONFIG_HOME="+t.TempDir(), "XDG_DATA_HOME="+t.TempDir(),
	)}
	build := "go build -C $REPOSITORY -o $GOBIN ./cmd/demo ./cmd/rossby\nGOFLAGS=-mod=mod go install " + natsCLI
	if out, err := sh.run(t, build); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	here := strings.NewReplacer(
		"go run ./cmd/demo   #", "demo --nats-listen "+natsAddress+" --http "+httpAddress+" #",
		"go run ./cmd/demo run", "demo run",
		"go run ./cmd/demo load --transfers 2000", "demo load --http http://"+httpAddress+" --transfers 40",
		"go install github.com/rossby-go/rossby/cmd/rossby@latest", ":",
		"nats kv get bank_accounts 1.a1", "until nats kv get bank_accounts 1.a1; do :; done",
		"127.0.0.1:4222", natsAddress, "127.0.0.1:8080", httpAddress,
	).Replace
	for _, document := range withDemo {
		sh.do(t, shellText(t, document), here)
	}
}
