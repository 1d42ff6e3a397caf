package promql_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/rossby-go/rossby/test/signals/shop"
)

type dashboard struct {
	Templating struct {
		List []struct {
			Name  string `json:"name"`
			Query string `json:"query"`
		} `json:"list"`
	} `json:"templating"`
	Panels []struct {
		Title   string `json:"title"`
		Targets []struct {
			Expr         string `json:"expr"`
			LegendFormat string `json:"legendFormat"`
		} `json:"targets"`
	} `json:"panels"`
}

var legend = regexp.MustCompile(`{{(\w+)}}`)

// Each panel of the dashboard shows something of a shop that has something to do: its
// expressions are valid, their metrics are those of /metrics, they result in numbers,
// and their legends have the labels that they name.
func TestDashboard(t *testing.T) {
	t.Parallel()
	var d dashboard
	if err := json.Unmarshal(shop.Need(os.ReadFile("../../docs/signals/grafana.json"))(t), &d); err != nil {
		t.Fatal(err)
	}
	w := watch(t, 0)
	n := 0
	w.pass(t, 5*time.Minute, func() {
		n++
		w.place(t, fmt.Sprintf("o%d", n+1))
	})
	w.reaches(t, "sum(rossby_view_lag) + sum(rossby_follower_lag) == 0")
	w.now = w.now.Add(step)
	w.place(t, "last")
	w.scrape(t)
	fill := strings.NewReplacer("$store", w.Store.Name(), "$__rate_interval", "4m")
	metrics := map[string]bool{}
	for _, s := range w.series {
		metrics[s.labels.Get("__name__")] = true
	}
	targets := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			targets++
			expr := fill.Replace(target.Expr)
			used := metricsOf(t, expr)
			if len(used) == 0 {
				t.Errorf("%s: %s is about nothing", p.Title, expr)
			}
			for _, name := range used {
				if !metrics[name] {
					t.Errorf("%s: %s is not in /metrics", p.Title, name)
				}
			}
			result := w.query(t, expr)
			if len(result) == 0 {
				t.Errorf("%s: %s has no result", p.Title, expr)
			}
			for _, r := range result {
				if math.IsNaN(r.F) {
					t.Errorf("%s: %s of %s is no number", p.Title, expr, r.Metric)
				}
				for _, label := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
					if r.Metric.Get(label[1]) == "" {
						t.Errorf("%s: %s has no %s", p.Title, r.Metric, label[1])
					}
				}
			}
		}
	}
	if targets < 30 {
		t.Errorf("only %d targets", targets)
	}
	for _, v := range d.Templating.List {
		args, ok := strings.CutPrefix(v.Query, "label_values(")
		if name, _, _ := strings.Cut(args, ","); ok && !metrics[name] {
			t.Errorf("variable %s: %s is not in /metrics", v.Name, v.Query)
		}
	}
}

// Each metric of the alerts is one of /metrics.
func TestAlertsUseRealMetrics(t *testing.T) {
	t.Parallel()
	w := watch(t, 0)
	w.reaches(t, "sum(rossby_view_delay_seconds_count) > 0 and sum(rossby_gateway_delivered_total) > 0")
	for _, r := range w.rules {
		for _, name := range metricsOf(t, r.expr) {
			if len(w.query(t, "count("+name+")")) == 0 {
				t.Errorf("%s: %s is not in /metrics", r.name, name)
			}
		}
	}
}

// metricsOf are the metrics of an expression.
func metricsOf(t *testing.T, expr string) []string {
	t.Helper()
	var names []string
	e := shop.Need(parser.NewParser(parser.Options{}).ParseExpr(expr))(t)
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			names = append(names, v.Name)
		}
		return nil
	})
	return names
}
