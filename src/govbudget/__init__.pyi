from govbudget.authz.policy import Policy as Policy
from govbudget.budgets.budget import Budget as Budget
from govbudget.db.unit import Grant as Grant
from govbudget.directory.protocol import Directory as Directory
from govbudget.directory.sql import SqlDirectory as SqlDirectory
from govbudget.errors import (
    BudgetExceeded as BudgetExceeded,
)
from govbudget.errors import (
    Forbidden as Forbidden,
)
from govbudget.errors import (
    GovBudgetError as GovBudgetError,
)
from govbudget.errors import (
    GrantRefused as GrantRefused,
)
from govbudget.errors import (
    GroupChanged as GroupChanged,
)
from govbudget.errors import (
    InvalidInput as InvalidInput,
)
from govbudget.errors import (
    NotAMember as NotAMember,
)
from govbudget.errors import (
    NotFound as NotFound,
)
from govbudget.errors import (
    PolicyError as PolicyError,
)
from govbudget.errors import (
    PreconditionFailed as PreconditionFailed,
)
from govbudget.errors import (
    SettingsError as SettingsError,
)
from govbudget.errors import (
    UnpricedModel as UnpricedModel,
)
from govbudget.extension import GovBudget as GovBudget
from govbudget.identity import (
    SITE as SITE,
)
from govbudget.identity import (
    Assignment as Assignment,
)
from govbudget.identity import (
    Domain as Domain,
)
from govbudget.identity import (
    Group as Group,
)
from govbudget.identity import (
    Member as Member,
)
from govbudget.identity import (
    Organization as Organization,
)
from govbudget.identity import (
    Scope as Scope,
)
from govbudget.identity import (
    Subject as Subject,
)
from govbudget.ids import IdType as IdType
from govbudget.layout import Layout as Layout
from govbudget.spend.installation import Installation as Installation
from govbudget.spend.tokens import Tokens as Tokens
from govbudget.spend.usage import Call as Call
