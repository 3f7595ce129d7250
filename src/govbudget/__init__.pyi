from govbudget.authz.policy import Policy as Policy
from govbudget.budgets.budget import Budget as Budget
from govbudget.db.databases import Databases as Databases
from govbudget.db.unit import Grant as Grant
from govbudget.directory.protocol import Directory as Directory
from govbudget.directory.sql import SqlDirectory as SqlDirectory
from govbudget.errors import (
    Forbidden as Forbidden,
    GovBudgetError as GovBudgetError,
    GrantRefused as GrantRefused,
    GroupChanged as GroupChanged,
    InvalidInput as InvalidInput,
    NotFound as NotFound,
    PolicyError as PolicyError,
    PreconditionFailed as PreconditionFailed,
    SettingsError as SettingsError,
)
from govbudget.extension import GovBudget as GovBudget
from govbudget.identity import (
    SITE as SITE,
    Assignment as Assignment,
    Domain as Domain,
    Group as Group,
    Member as Member,
    Organization as Organization,
    Scope as Scope,
    Subject as Subject,
)
from govbudget.ids import IdType as IdType
from govbudget.layout import Layout as Layout
from govbudget.spend.errors import (
    BudgetExceeded as BudgetExceeded,
    NotAMember as NotAMember,
    UnpricedModel as UnpricedModel,
)
from govbudget.spend.installation import Installation as Installation
from govbudget.spend.tokens import Tokens as Tokens
from govbudget.spend.usage import Call as Call
