package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/cluster/join"
	"github.com/knarr-io/knarr/internal/server/authn"
)

// Token is knarr token: what lets further machines join.
func Token() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and remove the tokens with which machines join",
		Long: `A token lets machines join the cluster with knarr agent until its time is over. It holds the fingerprint of the cluster's
authority, by which the machine knows the right server, and a secret, by which the server knows the machine.`,
	}
	cmd.PersistentFlags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "the cluster's data directory")
	with := func(do func(ctx context.Context, out io.Writer, a *admin) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			a, err := newAdmin(dataDir)
			if err != nil {
				return err
			}
			defer a.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			return do(ctx, cmd.OutOrStdout(), a)
		}
	}
	var ttl time.Duration
	var description string
	var server bool
	create := &cobra.Command{
		Use: "create", Short: "Make a token and print how to use it", Args: cobra.NoArgs,
		RunE: with(func(ctx context.Context, out io.Writer, a *admin) error {
			return createToken(ctx, out, a, tokenWish{ttl, description, server}, time.Now())
		}),
	}
	create.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long machines may join with it; 0 means for ever")
	create.Flags().BoolVar(&server, "server", false, "the token lets machines join as servers, which get the cluster's keys and data")
	create.Flags().StringVar(&description, "description", "", "what it is for, for those who list tokens")
	list := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the tokens", Args: cobra.NoArgs,
		RunE: with(func(ctx context.Context, out io.Writer, a *admin) error { return listTokens(ctx, out, a, time.Now()) }),
	}
	remove := &cobra.Command{
		Use: "rm ID...", Short: "Remove tokens; machines that have joined stay", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return with(func(ctx context.Context, out io.Writer, a *admin) error { return removeTokens(ctx, out, a, args) })(cmd, nil)
		},
	}
	cmd.AddCommand(create, list, remove)
	return cmd
}

// admin is the administrator's access to the cluster of a data directory.
type admin struct {
	client.Client
	Close func()
	ca    []byte
	// server is the API's URL, transport what carries requests to it.
	server    string
	transport http.RoundTripper
}

func newAdmin(dataDir string) (*admin, error) {
	path := cluster.KubeconfigPath(dataDir)
	if k := os.Getenv("KUBECONFIG"); k != "" {
		if _, err := os.Stat(path); err != nil {
			path = k
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("there is no administrator's kubeconfig at %s: run this on a server, or set KUBECONFIG: %w", path, err)
	}
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: tls, ForceAttemptHTTP2: true}
	c, err := client.NewRemote(client.RemoteConfig{Server: config.Host, Transport: transport, UserAgent: "knarr-cli"})
	if err != nil {
		return nil, err
	}
	return &admin{Client: c, Close: func() { c.Close(); transport.CloseIdleConnections() }, ca: config.CAData, server: strings.TrimRight(config.Host, "/"), transport: transport}, nil
}

// tokenWish is what a new token is to be like.
type tokenWish struct {
	ttl         time.Duration
	description string
	server      bool
}

func createToken(ctx context.Context, out io.Writer, a *admin, wish tokenWish, now time.Time) error {
	pin, err := join.PinOf(a.ca)
	if err != nil {
		return fmt.Errorf("the authority in the kubeconfig: %w", err)
	}
	var expires time.Time
	if wish.ttl > 0 {
		expires = now.Add(wish.ttl)
	}
	token := join.NewToken(pin)
	secret := token.BootstrapSecret(wish.description, expires)
	if wish.server {
		secret.Data["auth-extra-groups"] = []byte(join.ServersGroup)
	}
	if _, err := a.Create(ctx, secret); err != nil {
		return fmt.Errorf("making the token: %w", err)
	}
	fmt.Fprintln(out, token)
	how := "knarr agent --server"
	if wish.server {
		how = "knarr server --join"
	}
	if server := serverURL(ctx, a); server != "" {
		fmt.Fprintf(os.Stderr, "On the machine that is to join:\n\n  %s %s --token %s\n", how, server, token)
	}
	return nil
}

// serverURL is where other machines reach the API, if that can be found out.
func serverURL(ctx context.Context, c client.Client) string {
	slice, err := client.Get[*discoveryv1.EndpointSlice](ctx, c, api.Key{Namespace: metav1.NamespaceDefault, Name: "kubernetes"})
	if err != nil || len(slice.Endpoints) == 0 || len(slice.Endpoints[0].Addresses) == 0 || len(slice.Ports) == 0 || slice.Ports[0].Port == nil {
		return ""
	}
	return fmt.Sprintf("https://%s:%d", slice.Endpoints[0].Addresses[0], *slice.Ports[0].Port)
}

func listTokens(ctx context.Context, out io.Writer, a *admin, now time.Time) error {
	secrets, err := client.List[*corev1.Secret](ctx, a, client.ListOptions{Namespace: metav1.NamespaceSystem})
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 4, 3, ' ', 0)
	fmt.Fprintln(w, "ID\tFOR\tLEFT\tDESCRIPTION")
	for _, s := range secrets {
		if s.Type != authn.BootstrapTokenType {
			continue
		}
		left := "for ever"
		if t, err := time.Parse(time.RFC3339, string(s.Data["expiration"])); err == nil {
			left = t.Sub(now).Round(time.Second).String()
		}
		if authn.BootstrapTokenExpired(s, now) {
			left = "over"
		}
		who := "agents"
		if slices.Contains(strings.Split(string(s.Data["auth-extra-groups"]), ","), join.ServersGroup) {
			who = "servers"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Data["token-id"], who, left, s.Data["description"])
	}
	return w.Flush()
}

func removeTokens(ctx context.Context, out io.Writer, a *admin, ids []string) error {
	var errs []error
	for _, id := range slices.Compact(ids) {
		if t, err := join.ParseToken(id); err == nil {
			id = t.ID
		}
		id, _, _ = strings.Cut(id, ".")
		err := client.Delete[*corev1.Secret](ctx, a, api.Key{Namespace: metav1.NamespaceSystem, Name: authn.BootstrapTokenPrefix + id}, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			err = fmt.Errorf("there is no token %q (knarr token ls lists them)", id)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(out, "removed token %s\n", id)
	}
	return errors.Join(errs...)
}
