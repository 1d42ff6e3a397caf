package acceptance_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rossby-go/rossby"

func deps(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg).Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", pkg, err)
	}
	return strings.Fields(string(out))
}

func links(deps []string, prefix string) bool {
	return slices.ContainsFunc(deps, func(d string) bool { return d == prefix || strings.HasPrefix(d, prefix+"/") })
}

// TestDependencies: what a program links depends on the modules it holds.
func TestDependencies(t *testing.T) {
	t.Parallel()
	const natsServer = "github.com/nats-io/nats-server/v2"
	for _, test := range []struct {
		pkg   string
		links []string
		not   []string
	}{
		{"/test/queryonly", []string{"/projection"}, []string{"/aggregate", "/gateway", "/cmd/demo/internal/commands", natsServer}},
		{"/jetstream", nil, []string{"/aggregate", "/projection", "/gateway", natsServer}},
		{"/aggregate", []string{"/jetstream"}, []string{"/projection", "/gateway", natsServer}},
		{"/aggregate/commandhttp", []string{"/aggregate"}, []string{"/projection", "/gateway", natsServer}},
		{"/projection", []string{"/jetstream"}, []string{"/aggregate", "/gateway", natsServer}},
		{"/gateway", []string{"/jetstream"}, []string{"/aggregate", "/projection", natsServer}},
		{"/jetstream/embedded", []string{natsServer}, nil},
		{"/cmd/rossby", []string{"/aggregate", "/projection"}, []string{"/cmd/demo", natsServer}},
		{"/cmd/demo", []string{natsServer, "/aggregate", "/projection", "/gateway"}, nil},
	} {
		all := deps(t, module+test.pkg)
		full := func(p string) string {
			if strings.HasPrefix(p, "/") {
				return module + p
			}
			return p
		}
		for _, want := range test.links {
			if !links(all, full(want)) {
				t.Errorf("%s does not link %s", test.pkg, want)
			}
		}
		for _, not := range test.not {
			if links(all, full(not)) {
				t.Errorf("%s links %s", test.pkg, not)
			}
		}
	}
}
