package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// Why is knarr why: what lets something happen, or keeps it from happening.
func Why() *cobra.Command {
	var dataDir, namespace string
	cmd := &cobra.Command{
		Use:   "why",
		Short: "Say what lets something happen in the cluster, or keeps it from happening",
	}
	cmd.PersistentFlags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "the cluster's data directory")
	cmd.PersistentFlags().StringVarP(&namespace, "namespace", "n", metav1.NamespaceDefault, "the namespace of names that have none")
	cmd.AddCommand(&cobra.Command{
		Use:   "connect CLIENT SERVER:PORT[/PROTOCOL]",
		Short: "Say which rule of which NetworkPolicy lets a connection pass, or what stops it",
		Long: `CLIENT is a pod or an address; SERVER a pod, a Service or an address. Names are NAME or NAMESPACE/NAME, with pod/ or service/ before them where
both exist; PORT is a number or a name. A Service's connections are those to each of its ready endpoints. The answer follows from the same plan by
which nodes write their rules. Exits with 1 if a policy stops the connection.`,
		Example: `  knarr why connect web-5f7c shop/db:5432
  knarr why connect -n shop cart service/db:postgres
  knarr why connect 192.0.2.7 shop/web-0:8080`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := newAdmin(dataDir)
			if err != nil {
				return err
			}
			defer a.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			return whyConnect(ctx, cmd.OutOrStdout(), finder{a, namespace}, args[0], args[1])
		},
	})
	return cmd
}

// whyConnect prints what policies say of the connections from one end to another.
func whyConnect(ctx context.Context, out io.Writer, f finder, from, to string) error {
	c, err := f.clientEnd(ctx, from)
	if err != nil {
		return err
	}
	targets, err := f.targets(ctx, to)
	if err != nil {
		return err
	}
	k, err := know(ctx, f.client)
	if err != nil {
		return err
	}
	stopped := 0
	for i, t := range targets {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if !k.explain(out, c, t) {
			stopped++
		}
	}
	if len(targets) > 1 {
		fmt.Fprintf(out, "\nOf %d endpoints %d can be reached.\n", len(targets), len(targets)-stopped)
	}
	if stopped > 0 {
		return ExitCode(1)
	}
	return nil
}

// knowledge is what policies follow from.
type knowledge struct {
	pods       []*corev1.Pod
	namespaces []*corev1.Namespace
	policies   map[api.Key]*networkingv1.NetworkPolicy
}

func know(ctx context.Context, c client.Client) (k knowledge, err error) {
	if k.pods, err = client.List[*corev1.Pod](ctx, c, client.ListOptions{}); err != nil {
		return k, fmt.Errorf("listing pods: %w", err)
	}
	if k.namespaces, err = client.List[*corev1.Namespace](ctx, c, client.ListOptions{}); err != nil {
		return k, fmt.Errorf("listing namespaces: %w", err)
	}
	policies, err := client.List[*networkingv1.NetworkPolicy](ctx, c, client.ListOptions{})
	if err != nil {
		return k, fmt.Errorf("listing network policies: %w", err)
	}
	k.policies = map[api.Key]*networkingv1.NetworkPolicy{}
	for _, p := range policies {
		k.policies[api.KeyOf(p)] = p
	}
	return k, nil
}

// model returns the plan of a node that has both ends.
func (k knowledge) model(family nft.Family, ends ...end) *policy.Model {
	m := policy.New(family)
	for _, n := range k.namespaces {
		m.SetNamespace(n.Name, n.Labels)
	}
	for _, p := range k.pods {
		m.SetPod(policy.PodOf(p))
	}
	for _, p := range k.policies {
		m.SetPolicy(p)
	}
	for _, e := range ends {
		if e.pod == nil {
			continue
		}
		for _, addr := range e.addrs {
			m.Attach(policy.Attachment{Addr: addr, Pod: api.KeyOf(e.pod), UID: e.pod.UID})
		}
	}
	return m
}

// explain prints what policies say of a connection, and reports whether they let it pass.
func (k knowledge) explain(out io.Writer, c end, t target) bool {
	fmt.Fprintf(out, "%s to %s, port %d/%s\n", c, t.end, t.port, t.protocol)
	if c.node != "" && c.node == t.node && (c.pod == nil || t.pod == nil) {
		fmt.Fprintf(out, "passes: traffic between a pod and its own node is always allowed\n")
		return true
	}
	passes := true
	for _, pair := range pairs(c, t.end) {
		if len(c.addrs) > 1 && c.pod == nil {
			fmt.Fprintf(out, "with %s as its address:\n", pair[0])
		}
		m := k.model(nft.FamilyOf(pair[1]), c, t.end)
		for _, v := range m.Explain(policy.Connection{Client: pair[0], Server: pair[1], Protocol: t.protocol, Port: t.port}) {
			e, whose := t.end, "ingress of"
			if v.Direction == policy.Egress {
				e, whose = c, "egress of"
			}
			if e.pod == nil {
				continue // policies are about pods
			}
			fmt.Fprintf(out, "  %s %s: %s\n", whose, e.name, summary(v))
			for _, j := range v.Policies {
				fmt.Fprintf(out, "    %s: %s\n", j.Policy, sentence(k.policies[j.Policy], v.Direction, j.Rule))
			}
			passes = passes && v.Passes()
		}
	}
	if passes {
		fmt.Fprintln(out, "passes")
	} else {
		fmt.Fprintln(out, "is stopped")
	}
	return passes
}

// pairs returns the addresses of two ends that can talk to each other: those of one family.
func pairs(c, s end) (out [][2]netip.Addr) {
	for _, from := range c.addrs {
		at := slices.IndexFunc(s.addrs, func(to netip.Addr) bool { return to.Is4() == from.Is4() })
		if at >= 0 {
			out = append(out, [2]netip.Addr{from, s.addrs[at]})
		}
	}
	return out
}

func summary(v policy.Verdict) string {
	switch {
	case !v.Guarded:
		return "no policy is about it"
	case v.Unknown:
		return "closed, as the pod is not known"
	case v.Passes():
		return "a policy lets it pass"
	}
	return "no policy lets it pass"
}

// sentence says which rule of a policy it is, as the policy has it.
func sentence(p *networkingv1.NetworkPolicy, d policy.Direction, rule int) string {
	var rules []any
	for _, r := range p.Spec.Ingress {
		rules = append(rules, r)
	}
	if d == policy.Egress {
		rules = nil
		for _, r := range p.Spec.Egress {
			rules = append(rules, r)
		}
	}
	switch {
	case len(rules) == 0:
		return "it has no rules for " + d.String()
	case rule == 0:
		return fmt.Sprintf("none of its %d rules for %s", len(rules), d)
	}
	text, _ := json.Marshal(rules[rule-1]) // it was decoded
	return fmt.Sprintf("rule %d for %s: %s", rule, d, text)
}
