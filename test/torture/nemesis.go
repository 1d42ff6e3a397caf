package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/test/torture/rig"
)

// nemesis is a way to disturb the servers, the network or the modules. Run does so
// for about as long as it is told, and returns when the disturbance is over, with
// the number of things it did.
type nemesis struct {
	name string
	// cluster tells that it needs three servers, images that each needs a file
	// system of its own.
	cluster, images bool
	// blind tells that an ex-leader may live on that does not know it: until it does,
	// silent operations are not checked.
	blind bool
	run   func(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error)
}

// Names that stand in several places.
const (
	nemNone        = "none"
	nemCut         = "cut"
	nemLoseAcks    = "lose-acks"
	nemKillModules = "kill-modules"
	nemDamage      = "damage"
)

func nemeses() []nemesis {
	return []nemesis{
		{name: nemNone, run: func(ctx context.Context, _ *env, _ *rand.Rand, hold time.Duration) (int, error) {
			pause(ctx, hold)
			return 0, nil
		}},
		{name: "kill-leader", run: killing(leader)},
		{name: "kill-any", cluster: true, run: killing(anyone)},
		{name: "kill-all", run: killing(everyone)},
		{name: "restart", run: restart},
		{name: "rolling-restart", cluster: true, run: rolling},
		{name: "freeze-leader", blind: true, run: freezing(leader)},
		{name: "freeze-any", cluster: true, blind: true, run: freezing(anyone)},
		{name: "step-down", cluster: true, run: stepDown},
		{name: nemCut, run: cut},
		{name: "hold", run: holdClients},
		{name: "delay", run: delay},
		{name: nemLoseAcks, run: loseAcks},
		{name: "lose-requests", run: loseRequests},
		{name: "split-leader", cluster: true, blind: true, run: splitting(leader)},
		{name: "split-any", cluster: true, blind: true, run: splitting(anyone)},
		{name: "slow-routes", cluster: true, run: slowRoutes},
		{name: nemKillModules, run: killModules},
		{name: "freeze-modules", run: freezeModules},
		{name: "disk-full", cluster: true, images: true, run: diskFull(leader)},
		{name: "disk-full-all", images: true, run: diskFull(everyone)},
		{name: "power-leader", images: true, run: power(leader)},
		{name: "power-all", images: true, run: power(everyone)},
		{name: nemDamage, cluster: true, run: damage},
	}
}

// nemesisOf finds one by its name, or two at once by "one+other".
func nemesisOf(name string) (nemesis, error) {
	one, other, pair := strings.Cut(name, "+")
	if pair {
		a, err := nemesisOf(one)
		b, err2 := nemesisOf(other)
		return both(a, b), errors.Join(err, err2)
	}
	all := nemeses()
	i := slices.IndexFunc(all, func(n nemesis) bool { return n.name == name })
	if i < 0 {
		return nemesis{}, fmt.Errorf("no nemesis %q", name)
	}
	return all[i], nil
}

func both(a, b nemesis) nemesis {
	return nemesis{
		name: a.name + "+" + b.name, cluster: a.cluster || b.cluster, images: a.images || b.images, blind: a.blind || b.blind,
		run: func(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
			var g errgroup.Group
			var n [2]int
			for i, nemesis := range []nemesis{a, b} {
				own := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
				g.Go(func() (err error) {
					n[i], err = nemesis.run(ctx, e, own, hold)
					return err
				})
			}
			err := g.Wait()
			return n[0] + n[1], err
		},
	}
}

// victims chooses servers.
type victims func(ctx context.Context, e *env, rng *rand.Rand) []*rig.Node

func leader(ctx context.Context, e *env, rng *rand.Rand) []*rig.Node {
	i, err := e.cluster.Leader(ctx, storeName)
	if err != nil {
		i = rng.IntN(len(e.cluster.Nodes))
	}
	return e.cluster.Nodes[i : i+1]
}

func anyone(_ context.Context, e *env, rng *rand.Rand) []*rig.Node {
	i := rng.IntN(len(e.cluster.Nodes))
	return e.cluster.Nodes[i : i+1]
}

func everyone(_ context.Context, e *env, _ *rand.Rand) []*rig.Node { return e.cluster.Nodes }

func each(nodes []*rig.Node, f func(*rig.Node) error) error {
	var g errgroup.Group
	for _, n := range nodes {
		g.Go(func() error { return f(n) })
	}
	return g.Wait()
}

// killing ends servers at once and starts them again.
func killing(who victims) func(context.Context, *env, *rand.Rand, time.Duration) (int, error) {
	return func(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
		nodes := who(ctx, e, rng)
		for _, n := range nodes {
			n.Kill()
		}
		pause(ctx, hold)
		return len(nodes), each(nodes, func(n *rig.Node) error { return n.Start(ctx) })
	}
}

func restart(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
	n := anyone(ctx, e, rng)[0]
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		return 1, err
	}
	pause(ctx, hold/2)
	return 1, n.Start(ctx)
}

// rolling restarts one server after the other, as an update does: the next one once
// the one before has everything.
func rolling(ctx context.Context, e *env, _ *rand.Rand, _ time.Duration) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for i, n := range e.cluster.Nodes {
		if err := errors.Join(n.Stop(ctx), n.Start(ctx), e.cluster.Settled(ctx, time.Minute, storeName)); err != nil {
			return i, err
		}
	}
	return len(e.cluster.Nodes), nil
}

// freezing stops the processes of servers for a while; their peers have time to
// elect another leader.
func freezing(who victims) func(context.Context, *env, *rand.Rand, time.Duration) (int, error) {
	return func(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
		nodes := who(ctx, e, rng)
		for _, n := range nodes {
			n.Freeze()
		}
		// An election takes about four seconds of silence at least.
		pause(ctx, hold+3*time.Second)
		for _, n := range nodes {
			n.Thaw()
		}
		return len(nodes), nil
	}
}

func stepDown(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
	streams := []string{storeName, storeName, "KV_" + storeName + "__followers", "KV_" + storeName + "_" + accountsView}
	n := 0
	for end := time.Now().Add(hold); time.Now().Before(end); {
		once, cancel := context.WithTimeout(ctx, time.Second)
		if e.cluster.StepDown(once, streams[rng.IntN(len(streams))]) == nil {
			n++
		}
		cancel()
		pause(ctx, time.Duration(200+rng.IntN(600))*time.Millisecond)
	}
	return n, nil
}

// sides are the proxies of clients in this process, of the modules, or of both.
func sides(e *env, rng *rand.Rand) []*rig.Proxy {
	switch rng.IntN(3) {
	case 0:
		return e.cluster.Writers
	case 1:
		return e.cluster.Modules
	default:
		return slices.Concat(e.cluster.Writers, e.cluster.Modules)
	}
}

func healed(proxies []*rig.Proxy) {
	for _, p := range proxies {
		p.Heal()
	}
}

// cut lets nothing pass and then closes connections, again and again: what was on its
// way is lost.
func cut(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
	n := 0
	for end := time.Now().Add(hold); time.Now().Before(end); n++ {
		proxies := sides(e, rng)
		for _, p := range proxies {
			p.Hold()
		}
		pause(ctx, time.Duration(rng.IntN(200))*time.Millisecond)
		for _, p := range proxies {
			p.Cut()
		}
		pause(ctx, time.Duration(rng.IntN(100))*time.Millisecond)
		healed(proxies)
		pause(ctx, time.Duration(50+rng.IntN(300))*time.Millisecond)
	}
	return n, nil
}

// holdClients lets nothing pass between clients and servers for a while, without
// closing the connections.
func holdClients(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
	proxies := sides(e, rng)
	for _, p := range proxies {
		p.Hold()
	}
	pause(ctx, hold)
	healed(proxies)
	return 1, nil
}

// delay makes the network of clients slow.
func delay(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
	proxies := slices.Concat(e.cluster.Writers, e.cluster.Modules)
	for _, p := range proxies {
		p.Delay(time.Duration(5+rng.IntN(60)) * time.Millisecond)
	}
	pause(ctx, hold)
	healed(proxies)
	return len(proxies), nil
}

// loseAcks drops acknowledgements, and for moments everything that servers answer,
// and then the connections.
func loseAcks(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
	return losing(ctx, e, rng, hold, 0.3, 0)
}

// loseRequests drops what clients publish.
func loseRequests(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
	return losing(ctx, e, rng, hold, 0, 0.3)
}

func losing(
	ctx context.Context, e *env, rng *rand.Rand, hold time.Duration, acks, requests float64,
) (n int, err error) {
	all := slices.Concat(e.cluster.Writers, e.cluster.Modules)
	for _, p := range all {
		n -= p.Lost()
		p.Lose(acks, requests, rng.Uint64())
	}
	pause(ctx, hold)
	for _, p := range all {
		if acks > 0 && rng.IntN(2) == 0 {
			p.Deafen()
		}
	}
	pause(ctx, time.Duration(30+rng.IntN(250))*time.Millisecond)
	healed(all)
	for _, p := range all {
		n += p.Lost()
	}
	return n, nil
}

// splitting cuts a server off from its peers, but not from its clients.
func splitting(who victims) func(context.Context, *env, *rand.Rand, time.Duration) (int, error) {
	return func(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
		e.cluster.Split(who(ctx, e, rng)[0].Index, rng.IntN(2) == 0)
		pause(ctx, hold+4*time.Second)
		e.cluster.Heal()
		return 1, nil
	}
}

// slowRoutes lets one server lag behind the others.
func slowRoutes(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
	e.cluster.Slow(anyone(ctx, e, rng)[0].Index, time.Duration(5+rng.IntN(60))*time.Millisecond)
	pause(ctx, hold)
	e.cluster.Heal()
	return 1, nil
}

// killModules kills processes of modules, mostly the one that delivers, once it has
// begun to.
func killModules(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
	n := 0
	for end := time.Now().Add(hold); time.Now().Before(end); n++ {
		i := rng.IntN(len(e.modules))
		if rng.IntN(4) > 0 {
			i = e.awaitDelivery(ctx, i)
		}
		if e.receiver.busy(gatewayName, moduleNames[i], moduleTTL) {
			e.ownerKills++
		}
		e.modules[i].Kill()
		pause(ctx, time.Duration(rng.IntN(200))*time.Millisecond)
		if err := e.startModules(ctx, i); err != nil {
			return n, err
		}
		pause(ctx, time.Duration(rng.IntN(300))*time.Millisecond)
	}
	return n, nil
}

// awaitDelivery waits for a delivery, and a moment, and returns which process made
// it, or another one when none does.
func (e *env) awaitDelivery(ctx context.Context, other int) int {
	ctx, cancel := context.WithTimeout(ctx, 3*moduleTTL)
	defer cancel()
	for ctx.Err() == nil {
		for i, name := range moduleNames {
			if e.receiver.busy(gatewayName, name, 50*time.Millisecond) {
				pause(ctx, 150*time.Millisecond)
				return i
			}
		}
		pause(ctx, 10*time.Millisecond)
	}
	return other
}

// freezeModules stops the process that owns the followers, longer than its leases
// last, and lets it go on.
func freezeModules(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
	n := 0
	for end := time.Now().Add(hold); time.Now().Before(end); n++ {
		p := e.modules[rng.IntN(len(e.modules))]
		p.Freeze()
		pause(ctx, 2*moduleTTL+time.Duration(rng.IntN(500))*time.Millisecond)
		p.Thaw()
		pause(ctx, time.Duration(rng.IntN(300))*time.Millisecond)
	}
	return n, nil
}

// diskFull takes all room of servers' disks, gives it back and starts them again: a
// server whose disk was full has given JetStream up.
func diskFull(who victims) func(context.Context, *env, *rand.Rand, time.Duration) (int, error) {
	return func(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
		nodes := who(ctx, e, rng)
		err := each(nodes, (*rig.Node).FillDisk)
		pause(ctx, hold)
		err = errors.Join(err, each(nodes, (*rig.Node).EmptyDisk))
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return len(nodes), errors.Join(err, each(nodes, func(n *rig.Node) error {
			return errors.Join(n.Stop(ctx), n.Start(ctx))
		}))
	}
}

// power takes the power of machines: what their servers have not synced is gone.
func power(who victims) func(context.Context, *env, *rand.Rand, time.Duration) (int, error) {
	return func(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
		nodes := who(ctx, e, rng)
		var together sync.WaitGroup
		for _, n := range nodes {
			together.Go(n.Kill)
		}
		together.Wait()
		err := each(nodes, func(n *rig.Node) error { return n.LosePower(ctx) })
		pause(ctx, hold/2)
		return len(nodes), errors.Join(err, each(nodes, func(n *rig.Node) error { return n.Start(ctx) }))
	}
}

// damage flips bits in what one server, which is down then, has on its disk.
func damage(ctx context.Context, e *env, rng *rand.Rand, hold time.Duration) (int, error) {
	n := anyone(ctx, e, rng)[0]
	n.Kill()
	count, err := n.Damage()
	pause(ctx, hold)
	return count, errors.Join(err, n.Start(ctx))
}
