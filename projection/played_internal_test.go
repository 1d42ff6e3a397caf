package projection

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
)

// played is a view's bucket whose part a test plays: a log of writes, all of which the
// leader has, and of which a replica's answer shows as much as the test says.
type played struct {
	*bucket

	t  testing.TB
	mu sync.Mutex
	// log is what was stored under the sequences 1 and up, nil where it was removed.
	log []*nats.Msg
	// has is how many of them the replica has that answers. Unless it is set, all.
	has func(ask directGet) int
	// page bounds the messages of an answer to a batch request, as their size does; bytes
	// the values of one for several keys.
	page, bytes int
}

// directGet is a request that any replica answers.
type directGet struct {
	Seq        uint64   `json:"seq"`
	NextBySubj string   `json:"next_by_subj"`
	LastBySubj string   `json:"last_by_subj"`
	Batch      int      `json:"batch"`
	MultiLast  []string `json:"multi_last"`
}

// play starts a server without JetStream and answers for the bucket of a view.
func play(t testing.TB) *played {
	t.Helper()
	nc := natstest.Conn(t, natstest.RunBare(t))
	p := &played{bucket: newBucket(nc, natstest.Name(t), "v"), t: t, page: scanKeys, bytes: scanBytes}
	p.answer("$JS.API.DIRECT.GET."+p.stream, p.direct)
	p.answer("$JS.API.STREAM.MSG.GET."+p.stream, p.get)
	p.answer("$JS.API.STREAM.INFO."+p.stream, func(m *nats.Msg) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.respond(m, map[string]any{"state": map[string]int{"last_seq": len(p.log)}})
	})
	return p
}

func (p *played) answer(subject string, answer func(m *nats.Msg)) {
	p.t.Helper()
	if _, err := p.nc.Subscribe(subject, answer); err != nil {
		p.t.Fatal(err)
	}
}

func (p *played) respond(m *nats.Msg, body any) {
	data, err := json.Marshal(body)
	if err == nil {
		_ = m.Respond(data) // Who asks has gone when the test is over.
	}
}

// store adds a write to the log.
func (p *played) store(m *nats.Msg, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, m)
}

// key stores a value that reflects the events up to a sequence.
func (p *played) key(gen int, key, value string, reflects uint64) {
	p.t.Helper()
	m := nats.NewMsg(p.keyPrefix(gen) + key)
	m.Header[headerSequence] = []string{strconv.FormatUint(reflects, 10)}
	m.Data = []byte(value)
	p.store(m, nil)
}

// indexed stores a value that an index finds by some values.
func (p *played) indexed(gen int, key, value string, reflects uint64, places ...string) {
	p.t.Helper()
	p.key(gen, key, value, reflects)
	p.log[len(p.log)-1].Header[headerIndex] = places
}

// entry stores an entry of an index.
func (p *played) entry(gen int, place, key string) {
	p.t.Helper()
	p.store(nats.NewMsg(p.entrySubject(gen, place, key, key)), nil)
}

// generations stores the pointer to generations of which the first is live, each with an
// index by owner.
func (p *played) generations(gens ...int) {
	p.t.Helper()
	ptr := pointer{Format: checkpointFormat, Store: "s"}
	for _, n := range gens {
		g := generation{Number: n, Version: 1, State: generationBuilding, Made: time.Now(), Indexes: []string{"owner"}}
		if n == gens[0] {
			g.State = generationLive
		}
		ptr.Generations = append(ptr.Generations, g)
	}
	p.store(p.pointerMessage(&ptr, 0))
}

// at stores a generation's position.
func (p *played) at(gen int, position uint64) {
	p.t.Helper()
	p.store(p.message(p.checkpointSubject(gen), checkpoint{
		Format: checkpointFormat, View: p.view, Version: 1, Store: "s", Position: position, State: StateRunning,
	}, 0))
}

// stored is a message of the log.
type stored struct {
	*nats.Msg

	seq uint64
}

// matching are the last messages of each subject in a part of the log, in order.
func (p *played) matching(log []*nats.Msg, from uint64, filters ...string) []stored {
	last := map[string]stored{}
	for i, m := range log {
		if m != nil && slices.ContainsFunc(filters, func(f string) bool { return server.SubjectMatchesFilter(m.Subject, f) }) {
			last[m.Subject] = stored{m, uint64(i) + 1}
		}
	}
	return slices.SortedFunc(func(yield func(stored) bool) {
		for m := range maps.Values(last) {
			if m.seq >= from && !yield(m) {
				return
			}
		}
	}, func(a, b stored) int { return cmp.Compare(a.seq, b.seq) })
}

// get answers for the leader.
func (p *played) get(m *nats.Msg) {
	var ask directGet
	_ = json.Unmarshal(m.Data, &ask)
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.matching(p.log, 0, cmp.Or(ask.LastBySubj, ">"))
	if ask.Seq > 0 {
		found = slices.DeleteFunc(found, func(m stored) bool { return m.seq != ask.Seq })
	}
	if len(found) == 0 {
		p.respond(m, map[string]any{"error": map[string]any{"code": 404, "err_code": 10037, "description": "no message found"}})
		return
	}
	last := found[len(found)-1]
	var head strings.Builder
	head.WriteString("NATS/1.0\r\n")
	for name, values := range last.Header {
		for _, v := range values {
			head.WriteString(name + ": " + v + "\r\n")
		}
	}
	head.WriteString("\r\n")
	p.respond(m, map[string]any{"message": map[string]any{
		"subject": last.Subject, "seq": last.seq, "hdrs": []byte(head.String()), "data": last.Data, "time": time.Now(),
	}})
}

// direct answers for a replica.
func (p *played) direct(m *nats.Msg) {
	var ask directGet
	_ = json.Unmarshal(m.Data, &ask)
	p.mu.Lock()
	defer p.mu.Unlock()
	has := len(p.log)
	if p.has != nil {
		has = p.has(ask)
	}
	filters, most, left := ask.MultiLast, len(p.log), p.bytes
	if ask.Batch > 0 {
		filters, most, left = []string{ask.NextBySubj}, min(ask.Batch, p.page), scanBytes
	}
	found := p.matching(p.log[:has], ask.Seq, filters...)
	switch {
	case len(found) == 0:
		p.send(m, nats.Header{"Status": {"404"}}, nil)
		return
	case ask.Batch == 0 && len(found) > 1024:
		p.send(m, nats.Header{"Status": {"413"}}, nil)
		return
	}
	before, sent := uint64(0), 0
	for i, s := range found {
		if !strings.Contains(s.Subject, "_rossby") {
			left -= len(s.Data)
		}
		if i == most || left < 0 {
			break
		}
		h := maps.Clone(s.Header)
		h["Nats-Subject"], h["Nats-Sequence"] = []string{s.Subject}, number(s.seq)
		h["Nats-Time-Stamp"] = []string{time.Now().Format(time.RFC3339Nano)}
		h["Nats-Last-Sequence"], h["Nats-Num-Pending"] = number(before), number(uint64(len(found)-i-1))
		p.send(m, h, s.Data)
		before, sent = s.seq, i+1
	}
	p.send(m, nats.Header{
		"Status": {"204"}, "Nats-Num-Pending": number(uint64(len(found) - sent)),
		"Nats-Last-Sequence": number(before), "Nats-UpTo-Sequence": number(uint64(has)),
	}, nil)
}

func number(n uint64) []string { return []string{strconv.FormatUint(n, 10)} }

func (p *played) send(to *nats.Msg, h nats.Header, data []byte) {
	_ = p.nc.PublishMsg(&nats.Msg{Subject: to.Reply, Header: h, Data: data})
}

// patience is a context that ends when a test's patience does.
func patience(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	t.Cleanup(cancel)
	return ctx
}

// reader opens the view, whose values are numbers.
func (p *played) reader() *Reader[int] {
	p.t.Helper()
	r, err := NewReader[int](patience(p.t), p.nc, p.bucket.store, p.view,
		ReaderConfig{Wait: natstest.Patience, OpenWait: natstest.Patience})
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// behind lets replicas have all there is, but for the first times that they are asked for
// something: then they are behind.
func behind(all, less, times int, asked func(directGet) bool) func(directGet) int {
	return func(ask directGet) int {
		if !asked(ask) {
			return all
		}
		if times--; times >= 0 {
			return less
		}
		return all
	}
}
