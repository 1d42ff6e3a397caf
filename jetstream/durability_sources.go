package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// DurabilitySources are where to learn when servers sync their disks, which they do
// not tell plain clients. All are optional; where two know of a server, the least
// that one says holds.
type DurabilitySources struct {
	// Monitoring are the addresses of the servers' monitoring ports, such as
	// "http://n1:8222", whose /varz is read.
	Monitoring []string
	// System is a connection of the system account, which can ask every server.
	System *nats.Conn
	// Known is what the program knows itself of servers that it runs, by their names.
	Known map[string]Fsync
	// HTTPClient reads Monitoring. Defaults to one of its own; answers are bounded
	// either way.
	HTTPClient *http.Client
}

const (
	// varzMost bounds an answer; real ones have a few KB.
	varzMost = 1 << 20
	varzPath = "/varz"
)

// validate reports every mistake, joined.
func (f DurabilitySources) validate() error {
	var errs []error
	for _, address := range f.Monitoring {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, &InvalidError{
				Field: "DurabilitySources.Monitoring", Value: redact(address), Reason: "is not an http or https URL",
			})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Known)) {
		if !f.Known[name].known() {
			errs = append(errs, &InvalidError{
				Field: "DurabilitySources.Known", Value: string(f.Known[name]),
				Reason: fmt.Sprintf("for server %q is neither %q nor an interval", name, FsyncAlways),
			})
		}
	}
	return errors.Join(errs...)
}

// redact leaves passwords out of what people get to read.
func redact(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "a URL that cannot be parsed"
	}
	return u.Redacted()
}

// serverFact is what a source says of a server.
type serverFact struct {
	fsync   Fsync
	version string
}

// varz is the part of a server's /varz that is read.
type varz struct {
	Name      string `json:"server_name"`
	Version   string `json:"version"`
	JetStream struct {
		Config *struct {
			SyncAlways   bool          `json:"sync_always"`
			SyncInterval time.Duration `json:"sync_interval"`
		} `json:"config"`
	} `json:"jetstream"`
}

// fact: a server that names no interval and does not always sync is one that does
// not tell.
func (v *varz) fact() serverFact {
	f := serverFact{version: v.Version, fsync: FsyncUnknown}
	if c := v.JetStream.Config; c != nil {
		switch {
		case c.SyncAlways:
			f.fsync = FsyncAlways
		case c.SyncInterval > 0:
			f.fsync = FsyncEvery(c.SyncInterval)
		}
	}
	return f
}

// gathered is what several sources say, asked at once.
type gathered struct {
	mu       sync.Mutex
	facts    map[string]serverFact
	problems []string
}

// add keeps the least that is said of a server.
func (g *gathered) add(name string, f serverFact) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old, ok := g.facts[name]
	if !ok || !old.fsync.known() || f.fsync.known() && f.fsync.interval() > old.fsync.interval() {
		if f.version == "" {
			f.version = old.version
		}
		g.facts[name] = f
		return
	}
	if old.version == "" {
		old.version = f.version
		g.facts[name] = old
	}
}

func (g *gathered) problemf(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.problems = append(g.problems, fmt.Sprintf(format, args...))
}

// ask asks every source about the servers, each for at most limit.
func (f DurabilitySources) ask(
	ctx context.Context, limit time.Duration, servers []ServerDurability,
) (map[string]serverFact, []string) {
	g := &gathered{facts: map[string]serverFact{}}
	for name, fsync := range f.Known {
		g.add(name, serverFact{fsync: fsync})
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var wg sync.WaitGroup
	for _, address := range f.Monitoring {
		wg.Go(func() { f.monitored(ctx, address, servers, g) })
	}
	if f.System != nil {
		for _, srv := range servers {
			if !srv.Offline && srv.Name != "" {
				wg.Go(func() { askSystem(ctx, f.System, srv.Name, g) })
			}
		}
	}
	wg.Wait()
	slices.Sort(g.problems)
	return g.facts, g.problems
}

// monitored reads one server's /varz.
func (f DurabilitySources) monitored(ctx context.Context, address string, servers []ServerDurability, g *gathered) {
	v, err := f.readVarz(ctx, address)
	if err != nil {
		// The error of the client repeats the URL, with its password.
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		g.problemf("%s: %v", redact(address), err)
		return
	}
	if !slices.ContainsFunc(servers, func(s ServerDurability) bool { return s.Name == v.Name }) {
		g.problemf("%s: server %q does not keep the stream", redact(address), v.Name)
		return
	}
	g.add(v.Name, v.fact())
}

func (f DurabilitySources) readVarz(ctx context.Context, address string) (*varz, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+varzPath, nil)
	if err != nil {
		return nil, err
	}
	client := f.HTTPClient
	if client == nil {
		// A report is rare: no connection is kept for the next one.
		client = &http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answers %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, varzMost+1))
	if err != nil {
		return nil, err
	}
	if len(body) > varzMost {
		return nil, fmt.Errorf("answers more than %d bytes", varzMost)
	}
	return parseVarz(body)
}

func parseVarz(body []byte) (*varz, error) {
	v := new(varz)
	if err := json.Unmarshal(body, v); err != nil {
		return nil, fmt.Errorf("its answer is no varz: %w", err)
	}
	if v.Name == "" {
		return nil, errors.New("its answer is no varz: it names no server")
	}
	return v, nil
}

// askSystem asks one server by its name.
func askSystem(ctx context.Context, nc *nats.Conn, name string, g *gathered) {
	body, err := json.Marshal(map[string]any{"server_name": name, "exact_match": true})
	if err != nil {
		g.problemf("system account: %v", err)
		return
	}
	m, err := nc.RequestWithContext(ctx, "$SYS.REQ.SERVER.PING.VARZ", body)
	if err != nil {
		g.problemf("system account, server %q: %v", name, err)
		return
	}
	var answer struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		g.problemf("system account, server %q: %v", name, err)
		return
	}
	v, err := parseVarz(answer.Data)
	if err != nil || v.Name != name {
		g.problemf("system account, server %q: its answer is no varz of it: %v", name, err)
		return
	}
	g.add(name, v.fact())
}
