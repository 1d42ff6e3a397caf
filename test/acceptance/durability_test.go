package acceptance_test

import (
	"net/http"
	"strings"
	"testing"
)

// The demo says what its commits rest on: when it starts and in its status, which
// the page shows. A module that requires more than is certain does not start.
func TestDurabilityIsShown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args         []string
		level, fsync string
	}{{nil, "fsynced", "always"}, {[]string{"--lazy-sync"}, "single-lazy", "2m0s"}} {
		p, base, nats := monolith(t, c.args...)
		if got := p.line(t, "Durability:"); !strings.HasPrefix(got, c.level+": 1 of 1 replicas in sync, file storage, fsync "+c.fsync) {
			t.Errorf("%v: at the start %q", c.args, got)
		}
		type status struct {
			Durability struct {
				Level   string `json:"level"`
				Fsync   string `json:"fsync"`
				InSync  int    `json:"inSync"`
				Servers []any  `json:"servers"`
			} `json:"durability"`
		}
		d := call[status](t, newClient(base), http.StatusOK, http.MethodGet, "/api/status", nil).Durability
		if d.Level != c.level || d.Fsync != c.fsync || d.InSync != 1 || len(d.Servers) != 1 {
			t.Errorf("%v: status %+v", c.args, d)
		}
		// Another process cannot know, so it is refused.
		m := start(t, "demanding", nil, demoBinary(t), "run", "account-view", "--nats", nats, "--require-durability", "fsynced",
			"--wait", patience.String())
		<-m.done
		if text := m.output(); m.err == nil || !strings.Contains(text, "durability is single-lazy, required is fsynced") ||
			!strings.Contains(text, "is not known") {
			t.Errorf("%v: %v, %s", c.args, m.err, text)
		}
	}
}
