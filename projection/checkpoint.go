package projection

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// checkpointFormat is the version of what checkpoint and pointer look like.
const checkpointFormat = 1

// State is what a view's updater is doing.
type State string

// The states.
const (
	// StateStarting has not looked at the view yet, StateStandby waits for the
	// owner to stop.
	StateStarting State = "starting"
	StateStandby  State = "standby"
	// StateRunning follows the events. StateBuilding does so for a generation that
	// is not read yet.
	StateRunning  State = "running"
	StateBuilding State = "building"
	// StatePaused was told to wait by [Admin.Pause].
	StatePaused State = "paused"
	// StateStopped gave up at an event or a fault that a person must look at.
	StateStopped State = "stopped"
	// StateFree has no owner: the last one ended in order.
	StateFree State = "free"
	// StateSealed was replaced by a later generation.
	StateSealed State = "sealed"
)

// checkpoint is what a generation's checkpoint key holds: its position, the owner
// and the fence, changed only by compare-and-set.
type checkpoint struct {
	Format  int    `json:"format"`
	View    string `json:"view"`
	Kind    string `json:"kind"`
	Version int    `json:"version"`
	Hash    string `json:"hash"`
	// Store is the store's id, Position the stream sequence up to which every
	// event is in the view.
	Store    string `json:"store"`
	Position uint64 `json:"position"`
	// Last is the last commit that was seen: it must be in the store.
	Last lastCommit `json:"last"`
	// Owner is who writes, "" for nobody. Epoch counts the owners, Flush their
	// writes: together they name a write.
	Owner string `json:"owner"`
	Epoch uint64 `json:"epoch"`
	Flush uint64 `json:"flush"`
	State State  `json:"state"`
	// Error says why it stopped, Failed at which event, which stays while it is tried
	// again; Skipped how many events were left out by policy or on command.
	Error   string       `json:"error,omitempty"`
	Failed  *FailedEvent `json:"failed,omitempty"`
	Skipped uint64       `json:"skipped,omitempty"`
	Time    time.Time    `json:"time"`
	// Began is when this owner began, and BeganAt at which position: for how long it
	// will take. Rate is the stream's messages a second that it went over lately.
	Began   time.Time `json:"began"`
	BeganAt uint64    `json:"beganAt,omitempty"`
	Rate    float64   `json:"rate,omitempty"`
}

// own makes an instance the owner of what nobody owns. The event that the view has
// stopped at stays, until the position has passed it: see [checkpoint.passed].
func (cp *checkpoint) own(me string, state State) {
	now := time.Now().UTC()
	cp.Owner, cp.Epoch, cp.Flush, cp.State, cp.Time = me, cp.Epoch+1, 0, state, now
	cp.Began, cp.BeganAt, cp.Rate = now, cp.Position, 0
	if cp.Failed == nil {
		cp.Error = ""
	}
}

// stop says why nobody owns the view any more: cause, when that stops it.
func (cp *checkpoint) stop(cause error) {
	cp.Owner, cp.State = "", StateFree
	if !isStop(cause) {
		return
	}
	cp.State, cp.Error, cp.Failed = StateStopped, cause.Error(), nil
	if fold, ok := errors.AsType[*FoldError](cause); ok {
		cp.Failed = fold.event()
	}
}

// passed forgets the event that the view had stopped at when the position is at it.
func (cp *checkpoint) passed() {
	if cp.Failed != nil && cp.Position >= cp.Failed.Sequence {
		cp.Error, cp.Failed = "", nil
	}
}

type lastCommit struct {
	Sequence uint64    `json:"sequence"`
	Commit   string    `json:"commit"`
	Time     time.Time `json:"time"`
}

// pointer is what the pointer key holds: the view's generations.
type pointer struct {
	Format      int          `json:"format"`
	Store       string       `json:"store"`
	Generations []generation `json:"generations"`
	// Last is the highest number that was ever given to a generation.
	Last int `json:"last,omitempty"`
}

type generation struct {
	Number  int             `json:"number"`
	Version int             `json:"version"`
	Hash    string          `json:"hash"`
	State   generationState `json:"state"`
	// Auto lets a generation that is built go live when it has caught up.
	Auto bool `json:"auto,omitempty"`
	// Served says that it was live before: it may be read while it catches up again.
	Served bool      `json:"served,omitempty"`
	Made   time.Time `json:"made"`
	// Indexes are the names of its indexes.
	Indexes []string `json:"indexes,omitempty"`
}

type generationState string

const (
	generationBuilding generationState = "building"
	generationLive     generationState = "live"
	generationOld      generationState = "old"
)

// live is the generation that is read, nil before there is one.
func (p *pointer) live() *generation {
	for i := range p.Generations {
		if p.Generations[i].State == generationLive {
			return &p.Generations[i]
		}
	}
	return nil
}

// find is the generation with a number, nil when there is none.
func (p *pointer) find(number int) *generation {
	for i := range p.Generations {
		if p.Generations[i].Number == number {
			return &p.Generations[i]
		}
	}
	return nil
}

// own is the generation that a program with a definition version writes: the live
// one if it is of that version, else one that is being built, else an old one.
func (p *pointer) own(version int) *generation {
	rank := map[generationState]int{generationLive: 3, generationBuilding: 2, generationOld: 1}
	var best *generation
	for i := range p.Generations {
		g := &p.Generations[i]
		if g.Version == version && (best == nil || rank[g.State] >= rank[best.State]) {
			best = g
		}
	}
	return best
}

// next is the number of a new generation. None is given twice.
func (p *pointer) next() int {
	n := p.Last
	for i := range p.Generations {
		n = max(n, p.Generations[i].Number)
	}
	return n + 1
}

// newest is the generation of the highest definition version.
func (p *pointer) newest() *generation {
	var best *generation
	for i := range p.Generations {
		if g := &p.Generations[i]; best == nil || g.Version > best.Version {
			best = g
		}
	}
	return best
}

// pick is the generation that a reader built for a definition version uses: of
// that version unless it is still being built, or the live one for version 0.
func (p *pointer) pick(version int) *generation {
	if version == 0 {
		return p.live()
	}
	var best *generation
	for i := range p.Generations {
		g := &p.Generations[i]
		if g.Version == version && (g.State == generationLive || g.Served) &&
			(best == nil || g.State == generationLive || best.State != generationLive) {
			best = g
		}
	}
	return best
}

func decodeCheckpoint(m *jetstream.Message) (*checkpoint, error) {
	c := new(checkpoint)
	if err := json.Unmarshal(m.Data, c); err != nil {
		return nil, fmt.Errorf("%w: checkpoint %s: %w", ErrBucket, m.Subject, err)
	}
	if c.Format != checkpointFormat {
		return nil, fmt.Errorf("%w: checkpoint %s is of format %d, this program reads %d",
			ErrBucket, m.Subject, c.Format, checkpointFormat)
	}
	return c, nil
}

func decodePointer(m *jetstream.Message) (*pointer, error) {
	p := new(pointer)
	if err := json.Unmarshal(m.Data, p); err != nil {
		return nil, fmt.Errorf("%w: pointer %s: %w", ErrBucket, m.Subject, err)
	}
	if p.Format != checkpointFormat {
		return nil, fmt.Errorf("%w: pointer %s is of format %d, this program reads %d",
			ErrBucket, m.Subject, p.Format, checkpointFormat)
	}
	return p, nil
}

// makePosition is the position of a sequence. Readers of views have no store to
// ask; the text is what jetstream.Position writes.
func makePosition(store string, sequence uint64) jetstream.Position {
	if store == "" || sequence == 0 {
		return jetstream.Position{}
	}
	p, err := jetstream.ParsePosition(store + "-" + strconv.FormatUint(sequence, 36))
	if err != nil {
		return jetstream.Position{}
	}
	return p
}

// splitPosition is the store id and sequence of a position.
func splitPosition(p jetstream.Position) (store string, sequence uint64) {
	store, text, _ := strings.Cut(p.String(), "-")
	sequence, _ = strconv.ParseUint(text, 36, 64)
	return store, sequence
}
