"""The tables: one description, from which the DDL and the upserts of every server are made.

Kept inside what SQLite, MySQL-compatible servers and TiDB all take (agent.utility.sql.tidb lists what TiDB refuses). On
a server of the MySQL family no key or index begins with time: on a distributed store that is one hot region. Zones,
gateways and alerts go by a 64-bit hash of their names, events by 16 octets
of a hash.

Energies are whole joules (1 kWh = 3,600,000 J): sums of integers are exact in any order, so that a day's rollup
equals the sum of its intervals to the last digit, whoever adds them up and however often they are sent.
"""

from __future__ import annotations

from agent.utility.sql.cases import ALERT, ALERT_EVENT, EVIDENCE, OUTCOME, SUSPECT, TAMPER
from agent.utility.sql.table import EVENT, INTEGER, KEY, NAME, REQUIRED_NAME, SHA256, Table

VERSION = 4
DAY_S = 86_400
JOULES_PER_KWH = 3_600_000

GATEWAY = Table(
    "gateway",
    (("gateway_key", KEY), ("tenant", REQUIRED_NAME), ("site", REQUIRED_NAME), ("gateway", REQUIRED_NAME)),
    keys=1,
    merge="first",
)
ZONE = Table(
    "zone",
    (("zone_key", KEY), ("gateway_key", KEY), ("zone", REQUIRED_NAME)),
    keys=1,
    merge="first",
    index=("gateway_key",),
)
GATEWAY_STATUS = Table(
    "gateway_status",
    (
        ("gateway_key", KEY),
        ("state", "VARCHAR(16) NOT NULL"),
        ("since_s", "BIGINT"),
        ("reason", "VARCHAR(255)"),
        ("meters", "INT NOT NULL"),
        ("software", NAME),
        # Ordered by arrival, not by `since`: a gateway that comes back says "online since" a time before its will.
        ("received_us", INTEGER),
    ),
    keys=1,
    merge="newest",
    guard="received_us",
)
GATEWAY_INFO = Table(
    "gateway_info",
    (
        ("gateway_key", KEY),
        ("model_sha256", SHA256),
        ("model_version", "BIGINT"),
        ("config_sha256", SHA256),
        ("body", "MEDIUMTEXT NOT NULL"),
        ("feeder", NAME),
        ("district", NAME),
        ("info_s", INTEGER),
    ),
    keys=1,
    merge="newest",
    guard="info_s",
)
BALANCE = Table(
    "balance",
    (
        ("zone_key", KEY),
        ("start_s", INTEGER),
        ("seconds", "INT NOT NULL"),
        ("main_j", "BIGINT"),
        ("sum_j", "BIGINT"),
        ("technical_j", "BIGINT"),
        ("residual_j", "BIGINT"),
        ("uncertainty_j", "BIGINT"),
        ("coverage_ppm", "INT NOT NULL"),
    ),
    keys=2,
    merge="first",
    numbers=True,
    by_time="start_s",
    partitioned=True,
)
BALANCE_DAY = Table(
    "balance_day",
    (
        ("zone_key", KEY),
        ("day", "INT NOT NULL"),
        ("intervals", "INT NOT NULL"),
        ("known_s", "INT NOT NULL"),
        ("main_j", INTEGER),
        ("sum_j", INTEGER),
        ("technical_j", INTEGER),
        ("residual_j", INTEGER),
        ("last_end_s", INTEGER),
        # The length of all intervals of the day; 0 if they have several, or if nobody knows: see Store.apply.
        ("step_s", "INT NOT NULL DEFAULT 0"),
    ),
    keys=2,
    merge="add",
    guard="step_s",
    numbers=True,
    by_time="day",
)
# The last forecast of each zone, whole; and of each day the first one, as figures and as the curve, for looking back.
FORECAST = Table(
    "forecast",
    (
        ("zone_key", KEY),
        ("peak_w", "DOUBLE NOT NULL"),
        ("peak_low_w", "DOUBLE NOT NULL"),
        ("peak_high_w", "DOUBLE NOT NULL"),
        ("peak_s", INTEGER),
        ("trough_w", "DOUBLE NOT NULL"),
        ("trough_s", INTEGER),
        ("capacity_w", "DOUBLE"),
        ("over_probability", "DOUBLE"),
        ("body", "MEDIUMTEXT NOT NULL"),
        ("issued_s", INTEGER),
    ),
    keys=1,
    merge="newest",
    guard="issued_s",
)
FORECAST_DAY = Table(
    "forecast_day",
    (
        ("zone_key", KEY),
        ("day", "INT NOT NULL"),
        ("issued_s", INTEGER),
        ("step_s", "INT NOT NULL"),
        ("peak_w", "DOUBLE NOT NULL"),
        ("peak_s", INTEGER),
        ("trough_w", "DOUBLE NOT NULL"),
        ("curve", "TEXT NOT NULL"),  # JSON: 48 h of [5 %, mean, 95 %] in W, step by step
    ),
    keys=2,
    merge="first",
    by_time="day",
)
# What became of the first forecast of a day, by hours ahead: `load_kwh` sums |load|, `bias_kwh` forecast minus load.
FORECAST_ERROR = Table(
    "forecast_error",
    (
        ("zone_key", KEY),
        ("day", "INT NOT NULL"),
        ("lead_h", "INT NOT NULL"),
        ("steps", "INT NOT NULL"),
        ("load_kwh", "DOUBLE NOT NULL"),
        ("error_kwh", "DOUBLE NOT NULL"),
        ("bias_kwh", "DOUBLE NOT NULL"),
        ("inside", "INT NOT NULL"),  # steps whose load lay within the 90 % band
    ),
    keys=3,
    merge="first",
    by_time="day",
)
# The same for sums: of the fleet, of a feeder, of a district, over the zones of which the whole day is known.
GROUP_DAY = Table(
    "group_day",
    (
        ("group_key", KEY),
        ("day", "INT NOT NULL"),
        ("kind", "VARCHAR(16) NOT NULL"),
        ("name", REQUIRED_NAME),
        ("zones", "INT NOT NULL"),
        ("forecast_peak_w", "DOUBLE NOT NULL"),  # the highest of the curves added up
        ("peak_w", "DOUBLE NOT NULL"),
        ("body", "TEXT NOT NULL"),  # JSON: agent.utility.fleet.realised.GroupErrors
    ),
    keys=2,
    merge="first",
    by_time="day",
)
GROUP_CAPACITY = Table(
    "group_capacity",
    (
        ("group_key", KEY),
        ("kind", "VARCHAR(16) NOT NULL"),
        ("name", REQUIRED_NAME),
        ("capacity_w", "DOUBLE NOT NULL"),
        ("changed_ms", INTEGER),
    ),
    keys=1,
    merge="newest",
    guard="changed_ms",
)
# What a meter of water, heat or gas counts, as it was last told: in no balance, so only the newest is kept.
REGISTER = Table(
    "register",
    (
        ("meter_key", KEY),
        ("gateway_key", KEY),
        ("meter", REQUIRED_NAME),
        ("medium", "VARCHAR(16) NOT NULL"),
        ("amount", "DOUBLE NOT NULL"),
        ("unit", "VARCHAR(16) NOT NULL"),
        ("body", "TEXT NOT NULL"),
        ("time_s", INTEGER),
    ),
    keys=1,
    merge="newest",
    guard="time_s",
)
DEAD_LETTER = Table(
    "dead_letter",
    (
        ("letter_id", EVENT),
        ("topic", "VARBINARY(512) NOT NULL"),
        ("reason", "VARCHAR(255) NOT NULL"),
        ("octets", "INT NOT NULL"),
        ("payload", "MEDIUMBLOB NOT NULL"),
        ("received_at", "DATETIME NOT NULL"),
    ),
    keys=1,
    merge="first",
)
ROLLOUT = Table(
    "rollout",
    (
        ("version", KEY),
        ("model_sha256", "CHAR(64) NOT NULL"),
        ("share_ppm", "INT NOT NULL"),
        ("started_s", INTEGER),
        ("changed_s", INTEGER),
    ),
    keys=1,
    merge="newest",
    guard="changed_s",
)
ROLLOUT_SENT = Table(
    "rollout_sent",
    (("gateway_key", KEY), ("version", KEY), ("sent_s", INTEGER)),
    keys=2,
    merge="first",
)
MODEL_REPORTED = Table(
    "model_reported",
    (
        ("gateway_key", KEY),
        ("state", "VARCHAR(16) NOT NULL"),
        ("version", "BIGINT"),
        ("model_sha256", SHA256),
        ("desired", "BIGINT"),
        ("reason", "VARCHAR(255)"),
        ("reported_s", INTEGER),
    ),
    keys=1,
    merge="newest",
    guard="reported_s",
)
CONFIG_REPORTED = Table(
    "config_reported",
    (
        ("gateway_key", KEY),
        ("state", "VARCHAR(16) NOT NULL"),
        ("version", "BIGINT"),
        ("config_sha256", SHA256),
        ("desired", "BIGINT"),
        ("reason", "VARCHAR(255)"),
        ("reported_s", INTEGER),
    ),
    keys=1,
    merge="newest",
    guard="reported_s",
)
GATEWAY_HEALTH = Table(
    "gateway_health",
    (
        ("gateway_key", KEY),
        ("uptime_s", INTEGER),
        ("cpu_percent", "DOUBLE"),
        ("memory_mb", "DOUBLE"),
        ("queue_messages", "BIGINT"),
        ("queue_octets", "BIGINT"),
        ("queue_oldest_s", "BIGINT"),
        ("evicted", "BIGINT"),
        ("buses_down", "INT NOT NULL"),
        ("meters", "INT NOT NULL"),
        ("health_s", INTEGER),
    ),
    keys=1,
    merge="newest",
    guard="health_s",
)
COMMAND_RESULT = Table(
    "command_result",
    (
        ("result_id", EVENT),
        ("gateway_key", KEY),
        ("command_id", NAME),
        ("name", "VARCHAR(32)"),
        ("status", "VARCHAR(8) NOT NULL"),
        ("reason", "VARCHAR(255)"),
        ("time_s", INTEGER),
        ("body", "MEDIUMTEXT NOT NULL"),
    ),
    keys=1,
    merge="first",
    index=("gateway_key", "command_id"),
)
# What people changed, on the page or with a verb: written in the same transaction as the change.
AUDIT = Table(
    "audit",
    (
        ("audit_id", EVENT),
        ("who", REQUIRED_NAME),
        ("role", "VARCHAR(16) NOT NULL"),
        ("action", "VARCHAR(32) NOT NULL"),
        ("subject", "VARCHAR(255) NOT NULL"),
        ("detail", "VARCHAR(255)"),
        ("at_s", INTEGER),
    ),
    keys=1,
    merge="first",
)
# What holds for everybody who uses this store, whichever program they come with.
SETTING = Table(
    "setting",
    (("setting_key", KEY), ("name", REQUIRED_NAME), ("value", "VARCHAR(255) NOT NULL"), ("changed_ms", INTEGER)),
    keys=1,
    merge="newest",
    guard="changed_ms",
)
# One row a day: the replica that writes it does the day's maintenance, the others see that somebody does.
MAINTENANCE = Table(
    "maintenance",
    (("duty_key", KEY), ("day", "INT NOT NULL"), ("replica", REQUIRED_NAME)),
    keys=1,
    merge="first",
)
MIGRATION = Table(
    "migration",
    (("version", "INT NOT NULL"), ("part", "VARCHAR(16) NOT NULL"), ("applied_at", "DATETIME NOT NULL")),
    keys=2,
    merge="first",
)

# In the order in which a transaction writes them: names before what refers to them. (There are no foreign keys: the
# names of a zone and its first balance are committed together.)
TABLES = (
    GATEWAY,
    ZONE,
    GATEWAY_STATUS,
    GATEWAY_INFO,
    BALANCE,
    BALANCE_DAY,
    FORECAST,
    FORECAST_DAY,
    FORECAST_ERROR,
    GROUP_DAY,
    GROUP_CAPACITY,
    REGISTER,
    ALERT,
    SUSPECT,
    ALERT_EVENT,
    TAMPER,
    EVIDENCE,
    OUTCOME,
    DEAD_LETTER,
    ROLLOUT,
    ROLLOUT_SENT,
    MODEL_REPORTED,
    CONFIG_REPORTED,
    GATEWAY_HEALTH,
    COMMAND_RESULT,
    AUDIT,
    SETTING,
    MAINTENANCE,
    MIGRATION,
)
