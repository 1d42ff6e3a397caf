package jetstream_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// configured starts a server from a configuration file, as an operator writes one,
// with a monitoring port and a system account.
func configured(t *testing.T, syncInterval string) (s *server.Server, monitor string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nats.conf")
	text := fmt.Sprintf(`
server_name: %s
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream { store_dir: %q, %s }
accounts {
  $SYS { users: [ { user: sys, password: sys } ] }
  APP { jetstream: enabled, users: [ { user: app, password: app } ] }
}
no_auth_user: app
`, natstest.Name(t), t.TempDir(), syncInterval)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	opts.NoSigs, opts.NoLog = true, true
	if s, err = server.NewServer(opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	s.Start()
	if !s.ReadyForConnections(natstest.Patience) {
		t.Fatal("the server does not start")
	}
	return s, "http://" + s.MonitorAddr().String()
}

func durability(t *testing.T, s *jetstream.Store, from jetstream.DurabilitySources) jetstream.Durability {
	t.Helper()
	d, err := s.Durability(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// inSync is the durability of a store once its three servers have all of it, as far as
// its leader has heard of late.
func inSync(t *testing.T, s *jetstream.Store, from jetstream.DurabilitySources) (d jetstream.Durability) {
	t.Helper()
	natstest.Eventually(t, "all in sync", func() (err error) {
		if d, err = s.Durability(t.Context(), from); err == nil && d.InSync != 3 {
			err = fmt.Errorf("%+v", d)
		}
		return err
	})
	return d
}

func TestDurabilityOfOneServer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		setting string
		fsync   jetstream.Fsync
		level   jetstream.DurabilityLevel
	}{
		"default":  {"", "2m0s", jetstream.DurabilitySingleLazy},
		"interval": {"sync_interval: 10s", "10s", jetstream.DurabilitySingleLazy},
		"always":   {"sync_interval: always", "always", jetstream.DurabilityFsynced},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, monitor := configured(t, c.setting)
			nc := natstest.Conn(t, srv.ClientURL())
			sys := natstest.Conn(t, srv.ClientURL(), nats.UserInfo("sys", "sys"))
			s := open(t, nc, jetstream.Config{Name: "bank", AttemptTimeout: natstest.Patience})
			// What a plain client is told.
			d := durability(t, s, jetstream.DurabilitySources{})
			if d.Level != jetstream.DurabilityUnknown || d.AtLeast != jetstream.DurabilitySingleLazy ||
				d.Fsync != jetstream.FsyncUnknown || d.Replicas != 1 || d.InSync != 1 || d.Storage != "file" ||
				d.PersistMode != "default" || d.ServerVersion != server.VERSION || len(d.Problems) != 0 || len(d.Servers) != 1 ||
				d.Servers[0] != (jetstream.ServerDurability{Name: srv.Name(), Leader: true, Current: true, Version: server.VERSION, Fsync: "unknown"}) {
				t.Errorf("without sources: %+v", d)
			}
			for what, from := range map[string]jetstream.DurabilitySources{
				"monitoring": {Monitoring: []string{monitor}}, "monitoring/": {Monitoring: []string{monitor + "/"}},
				"system account": {System: sys}, "known": {Known: map[string]jetstream.Fsync{srv.Name(): c.fsync}},
				"all": {Monitoring: []string{monitor}, System: sys, Known: map[string]jetstream.Fsync{srv.Name(): "always"}},
			} {
				d := durability(t, s, from)
				if d.Level != c.level || d.AtLeast != c.level || d.Fsync != c.fsync || d.Servers[0].Fsync != c.fsync ||
					d.Servers[0].Version != server.VERSION || len(d.Problems) != 0 {
					t.Errorf("%s: %+v", what, d)
				}
			}
			// Opening with a requirement.
			for _, level := range []jetstream.DurabilityLevel{jetstream.DurabilitySingleLazy, jetstream.DurabilityQuorumLazy, jetstream.DurabilityFsynced} {
				_, err := jetstream.Open(t.Context(), nc, jetstream.Config{
					Name: "bank", AttemptTimeout: natstest.Patience, RequireDurability: level, DurabilitySources: jetstream.DurabilitySources{Monitoring: []string{monitor}},
				})
				var refused *jetstream.DurabilityError
				switch {
				case level <= c.level && err != nil:
					t.Errorf("%v on %v: %v", level, c.level, err)
				case level > c.level && (!errors.As(err, &refused) || refused.Required != level || refused.Report.Level != c.level):
					t.Errorf("%v on %v: %v", level, c.level, err)
				case level == jetstream.DurabilityFsynced && err != nil && !strings.Contains(err.Error(), "every "+string(c.fsync)):
					t.Error(err)
				case level == jetstream.DurabilityQuorumLazy && err != nil && !strings.Contains(err.Error(), "one server keeps the stream"):
					t.Error(err)
				}
			}
			// What is not known is not there: it fails closed.
			_, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: "bank", RequireDurability: jetstream.DurabilityFsynced})
			if !is[*jetstream.DurabilityError](err) || !strings.Contains(err.Error(), `when server "`+srv.Name()+`" syncs its disk is not known`) ||
				!strings.Contains(err.Error(), "sync_interval: always") {
				t.Errorf("unknown: %v", err)
			}
		})
	}
}

// monitored are the addresses of a cluster's monitoring ports.
func monitored(c *natstest.Cluster) []string {
	var urls []string
	for _, s := range c.Servers {
		if s != nil {
			urls = append(urls, "http://"+s.MonitorAddr().String())
		}
	}
	return urls
}

func withMonitoring(_ int, o *server.Options) {
	o.HTTPHost, o.HTTPPort = "127.0.0.1", server.RANDOM_PORT
}

func TestDurabilityOfACluster(t *testing.T) {
	t.Parallel()
	always := 3 // servers that do
	for name, c := range map[string]struct {
		always     int
		level      jetstream.DurabilityLevel
		fsync      jetstream.Fsync
		withoutOne jetstream.DurabilityLevel
		words      string
	}{
		"always": {always, jetstream.DurabilityFsynced, "always", jetstream.DurabilityUnknown, "which is offline, syncs its disk is not known"},
		"lazy":   {0, jetstream.DurabilityQuorumLazy, "2m0s", jetstream.DurabilityQuorumLazy, "every 2m0s"},
		"mixed":  {2, jetstream.DurabilityQuorumLazy, "2m0s", jetstream.DurabilityQuorumLazy, "every 2m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := natstest.RunCluster(t, withMonitoring, func(i int, o *server.Options) { o.SyncAlways = i < c.always })
			nc := cluster.Conn(t)
			s := open(t, nc, jetstream.Config{Name: "bank", Replicas: 3, AttemptTimeout: natstest.Patience})
			from := jetstream.DurabilitySources{Monitoring: monitored(cluster)}
			d := inSync(t, s, from)
			if d.Level != c.level || d.AtLeast != c.level || d.Fsync != c.fsync || d.Replicas != 3 || len(d.Servers) != 3 || !d.Servers[0].Leader || len(d.Problems) != 0 {
				t.Errorf("%+v", d)
			}
			synced := 0
			for _, srv := range d.Servers {
				if srv.Fsync == jetstream.FsyncAlways {
					synced++
				}
				if srv.Version != server.VERSION || !srv.Current || srv.Offline {
					t.Errorf("%+v", srv)
				}
			}
			if synced != c.always {
				t.Errorf("%d servers sync always, want %d", synced, c.always)
			}
			if plain := inSync(t, s, jetstream.DurabilitySources{}); plain.Level != jetstream.DurabilityUnknown ||
				plain.AtLeast != jetstream.DurabilityQuorumLazy {
				t.Errorf("without sources: %+v", plain)
			}
			// A store with one replica is that server's, not the one of the connection.
			single := open(t, nc, jetstream.Config{Name: "single", AttemptTimeout: natstest.Patience})
			one := durability(t, single, from)
			leader := cluster.Leader(t, "single")
			if want := leader < c.always; len(one.Servers) != 1 || one.Servers[0].Name != cluster.Servers[leader].Name() ||
				(one.Level == jetstream.DurabilityFsynced) != want || one.Replicas != 1 {
				t.Errorf("one replica, on server %d: %+v", leader, one)
			}
			// One of its servers is not asked: what it does is not known.
			part := durability(t, s, jetstream.DurabilitySources{Monitoring: from.Monitoring[1:]})
			if part.Fsync != jetstream.FsyncUnknown || part.Level == jetstream.DurabilityFsynced {
				t.Errorf("two of three asked: %+v", part)
			}

			// One server of three is down: commits are still acknowledged, by two.
			gone := 0
			if cluster.StreamLeader("bank") == 0 {
				gone = 1
			}
			cluster.Stop(gone)
			from.Monitoring = monitored(cluster)
			natstest.Eventually(t, "one offline", func() error {
				d, err := s.Durability(t.Context(), from)
				if err == nil && (d.InSync != 2 || d.Replicas != 3) {
					err = fmt.Errorf("%+v", d)
				}
				return err
			})
			natstest.Eventually(t, "named as offline", func() error {
				d, err := s.Durability(t.Context(), from)
				if err != nil {
					return err
				}
				err = d.Require(jetstream.DurabilityFsynced)
				if d.Level != c.withoutOne || d.AtLeast != jetstream.DurabilityQuorumLazy ||
					!is[*jetstream.DurabilityError](err) || !strings.Contains(err.Error(), c.words) {
					return fmt.Errorf("%+v: %w", d, err)
				}
				return nil
			})
			if err := durability(t, s, from).Require(jetstream.DurabilityQuorumLazy); err != nil {
				t.Error(err)
			}
		})
	}
}

// answers serves what a monitoring port might.
func answers(t *testing.T, status int, body string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/varz" {
			status = http.StatusNotFound
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// Sources that cannot be asked, or say nothing, leave it unknown and say why.
func TestDurabilitySourcesThatFail(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	s := open(t, nc, jetstream.Config{Name: natstest.Name(t), AttemptTimeout: natstest.Patience})
	name := nc.ConnectedServerName()
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)
	for what, c := range map[string]struct {
		from jetstream.DurabilitySources
		want string
	}{
		"nobody there":   {jetstream.DurabilitySources{Monitoring: []string{"http://ann:secret@" + natstest.Addr(t)}}, "refused"},
		"silent":         {jetstream.DurabilitySources{Monitoring: []string{silent.URL}}, "deadline exceeded"},
		"not found":      {jetstream.DurabilitySources{Monitoring: []string{answers(t, http.StatusNotFound, "")}}, "404"},
		"redirect":       {jetstream.DurabilitySources{Monitoring: []string{answers(t, http.StatusFound, "")}}, "302"},
		"no JSON":        {jetstream.DurabilitySources{Monitoring: []string{answers(t, 200, "<html>")}}, "no varz"},
		"no server":      {jetstream.DurabilitySources{Monitoring: []string{answers(t, 200, `{}`)}}, "names no server"},
		"null":           {jetstream.DurabilitySources{Monitoring: []string{answers(t, 200, `null`)}}, "names no server"},
		"another server": {jetstream.DurabilitySources{Monitoring: []string{answers(t, 200, `{"server_name":"n9"}`)}}, `"n9" does not keep the stream`},
		"endless":        {jetstream.DurabilitySources{Monitoring: []string{answers(t, 200, strings.Repeat(" ", 2<<20))}}, "more than 1048576 bytes"},
		"no permission":  {jetstream.DurabilitySources{System: nc}, "no responders"},
		"no JetStream":   {jetstream.DurabilitySources{Monitoring: []string{answers(t, 200, fmt.Sprintf(`{"server_name":%q}`, name))}}, ""},
		"old server":     {jetstream.DurabilitySources{Monitoring: []string{answers(t, 200, fmt.Sprintf(`{"server_name":%q,"jetstream":{"config":{"max_memory":1}}}`, name))}}, ""},
		"another known":  {jetstream.DurabilitySources{Known: map[string]jetstream.Fsync{"n9": "always"}}, ""},
	} {
		asked := s
		if what == "silent" {
			asked = s.WithConn(nc) // with short attempts
		}
		d, err := asked.Durability(t.Context(), c.from)
		if err != nil || d.Level != jetstream.DurabilityUnknown || d.Fsync != jetstream.FsyncUnknown {
			t.Errorf("%s: %+v, %v", what, d, err)
		}
		problems := strings.Join(d.Problems, "\n")
		if !strings.Contains(problems, c.want) || (c.want == "") != (problems == "") || strings.Contains(problems, "secret") {
			t.Errorf("%s: problems %q, want %q", what, problems, c.want)
		}
		err = d.Require(jetstream.DurabilityFsynced)
		if !is[*jetstream.DurabilityError](err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, from := range map[string]jetstream.DurabilitySources{
		"no URL": {Monitoring: []string{"n1:8222"}}, "no host": {Monitoring: []string{"http://"}}, "broken": {Monitoring: []string{"http://a b"}},
		"unknown": {Known: map[string]jetstream.Fsync{name: "unknown"}}, "sometimes": {Known: map[string]jetstream.Fsync{name: "sometimes"}},
		"negative": {Known: map[string]jetstream.Fsync{name: "-2m"}},
	} {
		if _, err := s.Durability(t.Context(), from); !is[*jetstream.InvalidError](err) {
			t.Errorf("%s: %v", what, err)
		}
		if err := (jetstream.Config{Name: "bank", DurabilitySources: from}).Validate(); !is[*jetstream.InvalidError](err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := (jetstream.Config{Name: "bank", RequireDurability: 9}).Validate(); !is[*jetstream.InvalidError](err) {
		t.Errorf("an unknown requirement: %v", err)
	}
}

// What an operator may have done to the stream behind our back is told.
func TestDurabilityOfOtherStreams(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	js := natstest.JetStream(t, nc)
	known := jetstream.DurabilitySources{Known: map[string]jetstream.Fsync{nc.ConnectedServerName(): "always"}}
	for what, cfg := range map[string]natsjs.StreamConfig{
		"the storage is memory":     {Storage: natsjs.MemoryStorage},
		"the persist mode is async": {PersistMode: natsjs.AsyncPersistMode},
	} {
		cfg.Name = natstest.Name(t)
		s := open(t, nc, jetstream.Config{Name: cfg.Name})
		if err := js.DeleteStream(t.Context(), cfg.Name); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Durability(t.Context(), known); !errors.Is(err, jetstream.ErrStoreNotFound) {
			t.Errorf("deleted: %v", err)
		}
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		d := durability(t, s, known)
		if d.Level != jetstream.DurabilityMemory || d.AtLeast != jetstream.DurabilityMemory {
			t.Errorf("%s: %+v", what, d)
		}
		if err := d.Require(jetstream.DurabilitySingleLazy); !is[*jetstream.DurabilityError](err) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	nc.Close()
	s := jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64).WithConn(nc).Attempts(longAttempt)
	if _, err := s.Durability(t.Context(), known); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("a closed connection: %v", err)
	}
}

func TestDurabilityTexts(t *testing.T) {
	t.Parallel()
	d := jetstream.Durability{
		Level: jetstream.DurabilityUnknown, AtLeast: jetstream.DurabilityQuorumLazy, Replicas: 3, InSync: 2, Storage: "file",
		Fsync: jetstream.FsyncUnknown, ServerVersion: "2.15.2",
	}
	if got := d.String(); got != "unknown (at least quorum-lazy): 2 of 3 replicas in sync, file storage, fsync unknown, nats-server 2.15.2" {
		t.Error(got)
	}
	for _, name := range []string{"unknown", "memory", "single-lazy", "quorum-lazy", "fsynced"} {
		l, err := jetstream.ParseDurabilityLevel(name)
		if err != nil || l.String() != name {
			t.Errorf("%s: %v, %v", name, l, err)
		}
		data, err := json.Marshal(l)
		var again jetstream.DurabilityLevel
		if err != nil || json.Unmarshal(data, &again) != nil || again != l {
			t.Errorf("%s: %s, %v", name, data, err)
		}
	}
	if _, err := jetstream.ParseDurabilityLevel("best"); !is[*jetstream.InvalidError](err) {
		t.Error(err)
	}
	if got := jetstream.DurabilityLevel(9).String(); got != "durability(9)" {
		t.Error(got)
	}
	if jetstream.FsyncEvery(time.Second) != "1s" {
		t.Error("a second has another text")
	}
}
